//! What was counted of verifications, before it is added to the database. Made by the counters, written by the
//! store.

use time::OffsetDateTime;

use super::{OrganizationId, Verdict};
use crate::secret::TokenId;

/// How often one token got one verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseCount {
    /// The token.
    pub id: TokenId,
    /// Its organization.
    pub organization_id: OrganizationId,
    /// The verdict.
    pub verdict: Verdict,
    /// The first time that was counted; the count belongs to its hour.
    pub time: OffsetDateTime,
    /// How often; 0: the token was used, but not verified.
    pub verifications: u64,
}

impl UseCount {
    /// Returns whether the token was used, not refused.
    #[must_use]
    pub fn is_use(&self) -> bool {
        self.verdict == Verdict::Valid
    }

    /// Returns the number that the contract has for the verdict.
    #[must_use]
    pub fn verdict_number(&self) -> i16 {
        number(self.verdict)
    }
}

/// Returns the number that the contract has for a verdict.
#[must_use]
pub fn number(verdict: Verdict) -> i16 {
    match verdict {
        Verdict::Valid => 1,
        Verdict::Malformed => 2,
        Verdict::NotFound => 3,
        Verdict::Revoked => 4,
        Verdict::Expired => 5,
        Verdict::Disabled => 6,
        Verdict::MissingScope => 7,
        Verdict::IpNotAllowed => 8,
        _ => 0,
    }
}
