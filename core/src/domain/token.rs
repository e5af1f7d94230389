//! The token and its state. Called by every action and every reply that shows a token. Knows no clock: the
//! moment that a state is told for is an argument.

use time::OffsetDateTime;

use super::fields::{Labels, OrganizationId, RevokeReason, TokenName, UserId};
use super::networks::Networks;
use super::principal::Principal;
use super::scope::Scopes;
use crate::secret::TokenId;

/// A token's record: everything but what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Names the token; part of its secret, not secret itself.
    pub id: TokenId,
    /// The tenant that it lives in.
    pub organization_id: OrganizationId,
    /// Who it belongs to.
    pub user_id: UserId,
    /// What people call it.
    pub name: TokenName,
    /// What it allows.
    pub scopes: Scopes,
    /// What its creator noted on it.
    pub labels: Labels,
    /// Where it may be used from.
    pub allowed_cidrs: Networks,
    /// When it was created, by the database's clock.
    pub create_time: OffsetDateTime,
    /// Who created it.
    pub created_by: Principal,
    /// From when on it is expired; never when absent.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was last used, to within the interval in which uses are recorded; absent where it was not
    /// asked for, and before the first recorded use.
    pub last_use_time: Option<OffsetDateTime>,
    /// When it was revoked first.
    pub revoke_time: Option<OffsetDateTime>,
    /// Why it was revoked first.
    pub revoke_reason: Option<RevokeReason>,
    /// The token in whose place it was put; absent where it was created.
    pub rotated_from: Option<TokenId>,
    /// Since when it is disabled; absent where it is not.
    pub disable_time: Option<OffsetDateTime>,
}

/// Whether a token can be used, at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// It can be used.
    Active,
    /// Its expiration has come.
    Expired,
    /// It was revoked; stays so also past its expiration.
    Revoked,
    /// It is out of use until it is enabled again, and neither revoked nor expired.
    Disabled,
}

impl Token {
    /// Tells the token's state at `now`. It is expired from `expire_time` on, inclusive.
    #[must_use]
    pub fn state(&self, now: OffsetDateTime) -> TokenState {
        TokenState::at(now, self.revoke_time.is_some(), self.disable_time.is_some(), self.expire_time)
    }
}

impl TokenState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Active, Self::Expired, Self::Revoked, Self::Disabled];

    /// Tells the state at `now` of a token with this end, expired from it on, inclusive.
    pub(super) fn at(
        now: OffsetDateTime,
        revoked: bool,
        disabled: bool,
        expire_time: Option<OffsetDateTime>,
    ) -> Self {
        if revoked {
            Self::Revoked
        } else if expire_time.is_some_and(|end| now >= end) {
            Self::Expired
        } else if disabled {
            Self::Disabled
        } else {
            Self::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::token;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn of_several_ends_the_more_final_one_is_the_state() {
        let mut token = token(&[]);
        assert_eq!(token.state(NOW), TokenState::Active);
        token.disable_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Disabled);
        token.expire_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Expired);
        token.revoke_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Revoked);
    }
}
