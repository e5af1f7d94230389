//! Ids of requests that may be repeated without doing their work twice. Called by the commands that make a secret.

use rand::TryRng as _;
use zeroize::Zeroizing;

use super::CommandError;
use crate::clock;

/// Creates the id of a request that may be repeated. Shown only to the caller, if the response is lost.
pub(super) fn new_request_id() -> Result<String, CommandError> {
    let mut bytes = Zeroizing::new([0; 16]);
    clock::randomness().try_fill_bytes(bytes.as_mut_slice()).map_err(CommandError::Random)?;
    Ok(uuid::Builder::from_random_bytes(*bytes).into_uuid().to_string())
}
