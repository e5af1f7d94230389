//! Plans as they are stored, and the pages of their list: its filter, where a page ended, and the opaque token that passes
//! this position to the next call. Called by the actions about plans and the store. Knows no SQL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::OrganizationId;
use super::page::PageTokenError;
use super::plan::Plan;
use super::users::{add, take};
use crate::secret::{Keyring, TokenId};

/// The maximum bytes of a plan in a response: its names and limits, and who set it.
pub const LARGEST_PLAN: usize = 2 << 10;

/// The most tokens that are counted until a plan is said to be in use.
pub const MAX_COUNTED: usize = 1_000;

/// How many of these tokens are named.
pub const MAX_NAMED: usize = 10;

/// A plan as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// Who set it last, as in the audit log.
    pub updated_by: String,
    /// When it was set last.
    pub update_time: OffsetDateTime,
}

/// Tokens that have not ended name the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUse {
    /// How many; if [`MAX_COUNTED`], there may be more.
    pub tokens: usize,
    /// The first of them, by id: [`MAX_NAMED`] at most.
    pub first: Vec<TokenId>,
}

impl std::fmt::Display for PlanUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.tokens >= MAX_COUNTED { " or more" } else { "" };
        write!(f, "{}{more} tokens that have not ended name the plan: ", self.tokens)?;
        for (index, id) in self.first.iter().enumerate() {
            write!(f, "{}{id}", if index == 0 { "" } else { ", " })?;
        }
        if self.tokens > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

/// The filter of a list of plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanListing {
    /// Only this organization's; `None`: of all organizations.
    pub organization_id: Option<OrganizationId>,
}

/// The position of the last plan that a page has read, in the list's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanPosition {
    /// The organization's id, as stored.
    pub organization_id: String,
    /// The plan's name, as stored.
    pub name: String,
}

/// Page tokens of other lists begin with 1 or 2.
const VERSION: u8 = 3;
const TAG: usize = 16;

impl PlanListing {
    /// Encodes the page token that continues after `position`.
    #[must_use]
    pub fn page_token(&self, position: &PlanPosition, keyring: &Keyring) -> String {
        let mut bytes = vec![VERSION];
        add(&mut bytes, &position.organization_id);
        add(&mut bytes, &position.name);
        let tag = keyring.sign_page(&self.bound(&bytes));
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a page token that was encoded for this filter.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse_page_token(&self, text: &str, keyring: &Keyring) -> Result<PlanPosition, PageTokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PageTokenError)?;
        let (payload, tag) = bytes.split_last_chunk::<TAG>().ok_or(PageTokenError)?;
        if !keyring.verify_page(&self.bound(payload), tag) {
            return Err(PageTokenError);
        }
        let (&[VERSION], mut rest) = payload.split_first_chunk().ok_or(PageTokenError)? else {
            return Err(PageTokenError);
        };
        let position = PlanPosition { organization_id: take(&mut rest)?, name: take(&mut rest)? };
        if rest.is_empty() { Ok(position) } else { Err(PageTokenError) }
    }

    /// Returns what a page token is bound to: its own bytes, each of which has its length, then the filter.
    fn bound(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        add(&mut bytes, self.organization_id.as_ref().map_or("", OrganizationId::as_str));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_reads_back_and_only_with_its_filter() {
        let keyring =
            |byte| Keyring::parse(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap();
        let listing = PlanListing { organization_id: Some(OrganizationId::parse("acme").unwrap()) };
        let position = PlanPosition { organization_id: "acme".into(), name: "free".into() };
        let text = listing.page_token(&position, &keyring(1));
        assert_eq!(listing.parse_page_token(&text, &keyring(1)), Ok(position));
        assert!(listing.parse_page_token(&text, &keyring(2)).is_err());
        let all = PlanListing { organization_id: None };
        assert_eq!(all.parse_page_token(&text, &keyring(1)), Err(PageTokenError));
        for bad in ["", "A", &text[..text.len() - 1], &format!("{text}A")] {
            assert!(listing.parse_page_token(bad, &keyring(1)).is_err());
        }
    }
}
