//! The identity behind a valid secret, as integrations report it. Read from the cached message.

use axum::http::HeaderName;
use prost::Message as _;

use crate::api::proto::Token;
use crate::domain::{FieldError, Record, percent};

/// The suffixes of the identity headers' names.
const PARTS: [&str; 4] = ["user", "organization", "token-id", "scopes"];

/// The names of the identity headers. All are always set, so that none of a client's own passes through.
#[derive(Debug, Clone)]
pub struct IdentityHeaders([HeaderName; 4]);

impl IdentityHeaders {
    /// Creates the names with a prefix.
    ///
    /// # Errors
    /// The prefix is not 2 to 50 lower-case letters, digits and hyphens that end with a hyphen.
    pub fn with_prefix(prefix: &str) -> Result<Self, FieldError> {
        const RULE: FieldError =
            FieldError::Rule("is not 2 to 50 characters of a-z, 0-9 and '-' that end with '-'");
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(2..=50).contains(&prefix.len()) || !prefix.ends_with('-') || !prefix.bytes().all(allowed) {
            return Err(RULE);
        }
        let names = PARTS.map(|part| HeaderName::try_from(format!("{prefix}{part}")));
        let [Ok(user), Ok(organization), Ok(token_id), Ok(scopes)] = names else { return Err(RULE) };
        Ok(Self([user, organization, token_id, scopes]))
    }
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self(
            ["x-tokend-user", "x-tokend-organization", "x-tokend-token-id", "x-tokend-scopes"]
                .map(HeaderName::from_static),
        )
    }
}

/// A token that was found valid.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) Token);

impl Identity {
    /// Decodes the cached record; `None` if it is not a valid message.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        Token::decode(record.packed().wire()).ok().map(Self)
    }

    /// Returns the scopes, separated by spaces.
    pub(crate) fn scopes(&self) -> String {
        self.0.scopes.join(" ")
    }

    /// Returns the names and values of the identity headers.
    pub(crate) fn headers<'a>(&self, names: &'a IdentityHeaders) -> [(&'a HeaderName, String); 4] {
        let [user, organization, token_id, scopes] = &names.0;
        [
            (user, percent::encoded(&self.0.user_id)),
            (organization, percent::encoded(&self.0.organization_id)),
            (token_id, self.0.id.clone()),
            (scopes, self.scopes()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_prefix_makes_valid_header_names_only() {
        let made = IdentityHeaders::with_prefix("x-tokend-").unwrap();
        assert_eq!(made.0, IdentityHeaders::default().0);
        for bad in
            ["", "-", "x-auth", "X-Auth-", "x_auth-", "x auth-", "x:-", &format!("{}-", "x".repeat(50))]
        {
            assert!(IdentityHeaders::with_prefix(bad).is_err(), "{bad}");
        }
    }
}
