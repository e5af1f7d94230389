//! A token and a secret for tests, in this crate and those that depend on it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use time::macros::datetime;
use zeroize::Zeroizing;

use crate::domain::{Labels, Networks, OrganizationId, Principal, Scope, Scopes, Token, TokenName, UserId};
use crate::secret::{Secret, TokenId};

/// Returns a token with these scopes, of user ann in organization acme, created at noon on 28 February
/// 2026 (UTC).
///
/// # Panics
/// One of the texts is not a scope.
#[must_use]
pub fn token(scopes: &[&str]) -> Token {
    let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
    Token {
        id: TokenId::from_bytes([7; 16]),
        organization_id: OrganizationId::parse("acme").unwrap(),
        user_id: UserId::parse("ann").unwrap(),
        name: TokenName::parse("laptop").unwrap(),
        scopes: Scopes::new(scopes).unwrap(),
        labels: Labels::default(),
        allowed_cidrs: Networks::default(),
        create_time: datetime!(2026-02-28 12:00 UTC),
        created_by: Principal::Bootstrap,
        expire_time: None,
        last_use_time: None,
        revoke_time: None,
        revoke_reason: None,
        rotated_from: None,
        disable_time: None,
    }
}

/// Returns the secret with this id and these random bits.
#[must_use]
pub fn secret(id: [u8; 16], random: [u8; 32]) -> Secret {
    Secret::derived(TokenId::from_bytes(id), Zeroizing::new(random))
}

/// Returns a secret of id 0, 1, 2 … and random bits 100, 101, 102 …
///
/// # Panics
/// Never.
#[must_use]
pub fn known_secret() -> Secret {
    let id = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let random = std::array::from_fn(|i| u8::try_from(100 + i).unwrap());
    secret(id, random)
}
