//! The token record, its state, and the one function that judges it. Called by the engine and by every
//! reply that shows a token. Knows no clock: the moment of judging is an argument.

use time::OffsetDateTime;

use super::access::{Principal, Reach};
use super::fields::{Labels, OrganizationId, RevokeReason, TokenName, UserId};
use super::scope::{Scope, Scopes};
use crate::secret::{Mac, TokenId};

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
    /// When it was created, by the database's clock.
    pub create_time: OffsetDateTime,
    /// Who created it.
    pub created_by: Principal,
    /// From when on it is expired; never when absent.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was revoked first.
    pub revoke_time: Option<OffsetDateTime>,
    /// Why it was revoked first.
    pub revoke_reason: Option<RevokeReason>,
}

/// Whether a token can be used, at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenState {
    /// It can be used.
    Active,
    /// Its expiration has come.
    Expired,
    /// It was revoked; stays so also past its expiration.
    Revoked,
}

impl Token {
    /// Tells the token's state at `now`. It is expired from `expire_time` on, inclusive.
    #[must_use]
    pub fn state(&self, now: OffsetDateTime) -> TokenState {
        if self.revoke_time.is_some() {
            TokenState::Revoked
        } else if self.expire_time.is_some_and(|end| now >= end) {
            TokenState::Expired
        } else {
            TokenState::Active
        }
    }
}

/// A token together with its fast verifier: what Verify needs to know.
#[derive(Debug, Clone)]
pub struct Record {
    /// The token.
    pub token: Token,
    /// The MAC that its secret is compared with.
    pub mac: Mac,
}

/// What Verify says of a secret. Only `Valid` admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may be used for what was asked.
    Valid,
    /// The text is no secret: wrong form or wrong checksum.
    Malformed,
    /// Unknown id, wrong secret, or a token out of the caller's reach: all alike.
    NotFound,
    /// The token was revoked.
    Revoked,
    /// The token's expiration has come.
    Expired,
    /// The token lacks a required scope.
    MissingScope,
}

/// A verdict on a token whose secret matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What to answer.
    pub verdict: Verdict,
    /// The required scopes that the token lacks; empty unless the verdict is `MissingScope`.
    pub missing_scopes: Vec<Scope>,
}

/// Judges a token whose secret matched, at `now`, for a caller that reaches `reach`. The first verdict
/// that applies is given, in the order in which [`Verdict`] lists them.
#[must_use]
pub fn judge(token: &Token, now: OffsetDateTime, reach: &Reach, required: &Scopes) -> Judgement {
    let plain = |verdict| Judgement { verdict, missing_scopes: Vec::new() };
    if !reach.includes(&token.organization_id) {
        return plain(Verdict::NotFound);
    }
    match token.state(now) {
        TokenState::Revoked => return plain(Verdict::Revoked),
        TokenState::Expired => return plain(Verdict::Expired),
        TokenState::Active => {}
    }
    let missing_scopes = token.scopes.missing(required);
    if missing_scopes.is_empty() {
        plain(Verdict::Valid)
    } else {
        Judgement { verdict: Verdict::MissingScope, missing_scopes }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    pub(crate) fn token(scopes: &[&str]) -> Token {
        let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
        Token {
            id: TokenId::from_bytes([7; 16]),
            organization_id: OrganizationId::parse("acme").unwrap(),
            user_id: UserId::parse("ann").unwrap(),
            name: TokenName::parse("laptop").unwrap(),
            scopes: Scopes::new(scopes).unwrap(),
            labels: Labels::default(),
            create_time: NOW - Duration::days(1),
            created_by: Principal::Bootstrap,
            expire_time: None,
            revoke_time: None,
            revoke_reason: None,
        }
    }

    fn verdict(token: &Token, now: OffsetDateTime, required: &[&str]) -> Verdict {
        let required = required.iter().map(|text| Scope::parse(text).unwrap()).collect();
        judge(token, now, &Reach::Any, &Scopes::new(required).unwrap()).verdict
    }

    #[test]
    fn a_token_is_expired_from_its_expire_time_on() {
        let mut token = token(&[]);
        token.expire_time = Some(NOW);
        assert_eq!(verdict(&token, NOW - Duration::microseconds(1), &[]), Verdict::Valid);
        assert_eq!(verdict(&token, NOW, &[]), Verdict::Expired);
    }

    #[test]
    fn the_first_verdict_that_applies_is_given() {
        let mut token = token(&["a:b"]);
        assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::MissingScope);
        token.expire_time = Some(NOW);
        assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::Expired);
        token.revoke_time = Some(NOW);
        assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::Revoked);
    }

    #[test]
    fn another_organizations_token_is_not_found_whatever_its_state() {
        let mut token = token(&[]);
        token.revoke_time = Some(NOW);
        let other = Reach::Only(OrganizationId::parse("other").unwrap());
        let judgement = judge(&token, NOW, &other, &Scopes::default());
        assert_eq!(judgement.verdict, Verdict::NotFound);
    }

    #[test]
    fn missing_scopes_are_listed_with_their_verdict_alone() {
        let token = token(&["a:*"]);
        let required = |text| Scopes::new(vec![Scope::parse(text).unwrap()]).unwrap();
        let judgement = judge(&token, NOW, &Reach::Any, &required("b"));
        assert_eq!(judgement.missing_scopes, [Scope::parse("b").unwrap()]);
        assert!(judge(&token, NOW, &Reach::Any, &required("a:b")).missing_scopes.is_empty());
    }
}
