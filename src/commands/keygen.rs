//! `tokend keygen`: a new key for the keyring, on standard output.

use std::io::{self, Write};

use secrecy::{ExposeSecret, SecretString};

use super::CommandError;
use crate::ambient;
use crate::secret::Keyring;

pub(super) fn run() -> Result<(), CommandError> {
    let key = new_key()?;
    writeln!(io::stdout().lock(), "{}", key.expose_secret()).map_err(CommandError::Output)
}

/// Makes a keyring entry from the operating system's random numbers.
pub(super) fn new_key() -> Result<SecretString, CommandError> {
    Keyring::generate_entry(&mut ambient::randomness()).map_err(CommandError::Random)
}
