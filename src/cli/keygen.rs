//! `tokend keygen`: a new key for the keyring.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::CommandError;
use super::secret_output::OutputFlag;
use crate::clock;
use crate::secret::Keyring;

pub(super) fn run(output: OutputFlag) -> Result<(), CommandError> {
    let mut output = output.open()?;
    let key = new_key()?;
    let line = Zeroizing::new(format!("{}\n", key.expose_secret()));
    output.write(line.as_bytes()).map_err(CommandError::Output)
}

/// Creates a keyring entry from the operating system's random numbers.
pub(super) fn new_key() -> Result<SecretString, CommandError> {
    Keyring::generate_entry(&mut clock::randomness()).map_err(CommandError::Random)
}
