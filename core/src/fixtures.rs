//! A token and a secret for tests, in this crate and those that depend on it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use time::macros::datetime;
use zeroize::Zeroizing;

use crate::domain::{OrganizationId, Principal, Scope, Scopes, Token, TokenName, UserId};
use crate::secret::{Secret, TokenId};

/// Returns a token with these scopes, of user ann in organization acme, created at noon on 28 February
/// 2026 (UTC).
///
/// # Panics
/// One of the texts is not a scope.
#[must_use]
pub fn token(scopes: &[&str]) -> Token {
    let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
    let owner = (OrganizationId::parse("acme").unwrap(), UserId::parse("ann").unwrap());
    let name = TokenName::parse("laptop").unwrap();
    let creation = (datetime!(2026-02-28 12:00 UTC), Principal::Bootstrap);
    Token {
        scopes: Scopes::new(scopes).unwrap(),
        ..Token::new(TokenId::from_bytes([7; 16]), owner, name, creation)
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
