//! Whose a secret is: what a way tells of the token behind a VALID. Read from the message that the cache holds.

use std::fmt::Write as _;

use prost::Message as _;

use crate::domain::Record;
use crate::grpc::proto::Token;

/// The names of the headers that tell it, all of them always there, so that none of a client's own gets through.
pub(super) const USER: &str = "x-tokend-user";
pub(super) const ORGANIZATION: &str = "x-tokend-organization";
pub(super) const TOKEN_ID: &str = "x-tokend-token-id";
pub(super) const SCOPES: &str = "x-tokend-scopes";

/// A token that was found valid.
#[derive(Debug, Clone)]
pub(super) struct Identity(pub(super) Token);

impl Identity {
    /// Reads it; `None` where the cache holds what is none.
    pub(super) fn of(record: &Record) -> Option<Self> {
        Token::decode(record.packed().wire()).ok().map(Self)
    }

    /// Returns the scopes, separated by spaces.
    pub(super) fn scopes(&self) -> String {
        self.0.scopes.join(" ")
    }

    /// Returns names and values of the headers.
    pub(super) fn headers(&self) -> [(&'static str, String); 4] {
        [
            (USER, visible(&self.0.user_id)),
            (ORGANIZATION, visible(&self.0.organization_id)),
            (TOKEN_ID, self.0.id.clone()),
            (SCOPES, self.scopes()),
        ]
    }
}

/// Percent-encodes (RFC 3986, 2.1) what a header could lose or change: all but visible ASCII, and `%` itself. Ids
/// are opaque, so that two of them must never look alike.
pub(super) fn visible(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_a_header_is_told_from_every_other() {
        assert_eq!(visible("ada@example.org"), "ada@example.org");
        assert_eq!(visible(" ada %é"), "%20ada%20%25%C3%A9");
    }
}
