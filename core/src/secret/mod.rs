//! The secret: its text, its id, and its MAC. Used by all layers above; knows no clock, no I/O and no
//! runtime, and takes randomness as an argument.

mod base62;
mod format;
mod id;
mod mac;

pub use format::{FormatError, Prefix, PrefixError, Secret};
pub use id::{TokenId, TokenIdError};
pub use mac::{KeyId, Mac, MacKey};
