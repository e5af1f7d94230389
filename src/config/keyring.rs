//! Reads a keyring from a file or from the environment. Called by `resolve` for a keyring that was
//! given, and by serve for that of a private Postgres. A file that others may read is refused,
//! since the keys allow guesses against stolen rows.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{ConfigError, KeyringOrigin};
use crate::secret::Keyring;
use crate::secret::private_file::is_exposed;

/// More than a thousand keys: a longer file is not a keyring.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads a keyring file: one key a line, the first is primary; at most 64 KiB.
///
/// # Errors
/// [`ConfigError::KeyringUnreadable`], [`ConfigError::KeyringExposed`] when others can read it,
/// [`ConfigError::KeyringInvalid`] with the line's number.
pub fn read_keyring(path: &Path) -> Result<Keyring, ConfigError> {
    let unreadable = |source| ConfigError::KeyringUnreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Checked on the open file: the path may point elsewhere a moment later.
    let metadata = file.metadata().map_err(unreadable)?;
    if is_exposed(&metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        return Err(ConfigError::KeyringExposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Keyring::parse(&text).map_err(|source| ConfigError::KeyringInvalid {
        origin: KeyringOrigin::File(path.to_owned()),
        source,
    })
}
