//! Who did something, as `created_by` and the audit log say it. Read and written by the store and by the contract.
//! Knows nothing of what they may do.

use std::fmt;
use std::sync::Arc;

use crate::secret::TokenId;

/// Who did something: written into `created_by` and into the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// The holder of the token with this id.
    Token(TokenId),
    /// The holder of a client certificate with this subject alternative name.
    Certificate(Arc<str>),
    /// The operator, through `tokend bootstrap` or the embedded start.
    Bootstrap,
}

/// What precedes a certificate's name; no token id has a colon.
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
    /// Reads back what [`fmt::Display`] wrote; `None` for anything else.
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
