//! The secret: its text, and the two verifiers that are stored for it. Used by all layers above; knows
//! no clock, no I/O and no runtime, and takes randomness as an argument. The secret's bits are exposed
//! only here and in `core/`, which provides the text, its id and the fast verifier.

mod durable;
mod keyring;
mod link;
mod login;
pub mod private_file;
mod random;
mod request;
mod seal;
mod session;

pub use durable::{DurableCost, DurableError, DurableHash};
pub use keyring::{CurrentKeyring, Keyring, KeyringError, MacMatch};
pub use link::LinkCode;
pub use login::{CodeChallenge, CodeVerifier};
pub use request::{RequestContext, RequestId, RequestIdError, RequestSalt};
pub use seal::{SealHeader, SealedEvents};
pub use session::{FormNonce, SessionKey};
pub use tokend_core::secret::{
    FormatError, KeyId, Mac, MacKey, Prefix, PrefixError, Secret, TokenId, TokenIdError,
};
