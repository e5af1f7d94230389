//! The secret: its text, and the two verifiers that stand for it at rest. A leaf that everything above
//! uses; knows no clock, no I/O and no runtime, and takes randomness as an argument. The secret's bits are
//! exposed in here alone.

mod base62;
mod durable;
mod format;
mod id;
mod keyring;
mod request;
mod seal;

pub use durable::{DurableCost, DurableError, DurableHash};
pub use format::{FormatError, Prefix, PrefixError, Secret};
pub use id::{TokenId, TokenIdError};
pub use keyring::{KeyId, Keyring, KeyringError, Mac, MacMatch};
pub use request::{RequestContext, RequestId, RequestIdError, RequestSalt};
pub use seal::{SealHeader, SealedEvents};
