//! The author of an action, in `created_by` and the audit log. Read and written by the store and by the
//! API. Knows nothing of permissions.

use std::fmt;
use std::sync::Arc;

use super::portal::Portal;
use crate::secret::TokenId;

/// The author of an action: stored in `created_by` and in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// A client with the secret of the token with this id.
    Token(TokenId),
    /// A client with a client certificate of this subject alternative name.
    Certificate(Arc<str>),
    /// A person in a portal session, for whom a token vouches. Stored as that token.
    Portal(Arc<Portal>),
    /// The operator, through `tokend bootstrap` or the first start of a private Postgres.
    Bootstrap,
}

/// The prefix of a certificate's name; no token id contains a colon.
const CERTIFICATE: &str = "cert:";

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => id.fmt(f),
            Self::Portal(portal) => portal.token_id.fmt(f),
            Self::Certificate(name) => write!(f, "{CERTIFICATE}{name}"),
            Self::Bootstrap => f.write_str("bootstrap"),
        }
    }
}

impl Principal {
    /// Returns the token whose secret proves the author's authority: the author's own, or the one that vouches.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        match self {
            Self::Token(id) => Some(*id),
            Self::Portal(portal) => Some(portal.token_id),
            Self::Certificate(_) | Self::Bootstrap => None,
        }
    }

    /// Parses what [`fmt::Display`] wrote, never as a portal session; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bootstrap" => Some(Self::Bootstrap),
            text if text.starts_with(CERTIFICATE) => {
                Some(Self::Certificate(text[CERTIFICATE.len()..].into()))
            }
            id => TokenId::parse(id).ok().map(Self::Token),
        }
    }
}
