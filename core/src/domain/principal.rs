//! The author of an action, in `created_by` and the audit log. Read and written by the store and by the
//! API. Knows nothing of permissions.

use std::fmt;
use std::sync::Arc;

use crate::secret::TokenId;

/// The author of an action: stored in `created_by` and in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// A client with the secret of the token with this id.
    Token(TokenId),
    /// A client with a client certificate of this subject alternative name.
    Certificate(Arc<str>),
    /// The operator, through `tokend bootstrap` or the embedded start.
    Bootstrap,
}

/// The prefix of a certificate's name; no token id contains a colon.
const CERTIFICATE: &str = "cert:";

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => id.fmt(f),
            Self::Certificate(name) => write!(f, "{CERTIFICATE}{name}"),
            Self::Bootstrap => f.write_str("bootstrap"),
        }
    }
}

impl Principal {
    /// Parses what [`fmt::Display`] wrote; `None` for anything else.
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
