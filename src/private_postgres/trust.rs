//! Checks whether root may use a data directory: root runs Postgres on it and trusts its keyring.
//! Rejects what another account owns or could replace. Called before anything there is opened.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::account::{is_root, unprivileged_users};
use super::error::PrivatePostgresError;

/// The files of a data directory that are not Postgres's own.
const TOKEND_FILES: [&str; 4] = ["keyring", "root-secret", "lock", "postgres.log"];

/// The directories owned by the account that runs Postgres.
const OF_POSTGRES: [&str; 3] = ["postgres", "postgres.new", "postgres-socket"];

/// Checks the path to the directory, the directory, and its content. Only for root: for an ordinary
/// account Postgres itself rejects what belongs to another one.
///
/// # Errors
/// [`PrivatePostgresError::OfAnotherAccount`] and [`PrivatePostgresError::WritableByOthers`].
pub(super) fn check(directory: &Path) -> Result<(), PrivatePostgresError> {
    if !is_root() {
        return Ok(());
    }
    check_path(directory)?;
    // The target of links, too; its path contains no links.
    if let Ok(resolved) = fs::canonicalize(directory) {
        check_path(&resolved)?;
    }
    for name in TOKEND_FILES {
        check_owner(&directory.join(name), &[])?;
    }
    let users = unprivileged_users();
    OF_POSTGRES.into_iter().try_for_each(|name| check_owner(&directory.join(name), &users))
}

/// Checks that only root decides where a path leads.
fn check_path(path: &Path) -> Result<(), PrivatePostgresError> {
    path.ancestors().filter(|path| !path.as_os_str().is_empty()).try_for_each(|path| {
        check_owner(path, &[])?;
        match found(fs::symlink_metadata(path), path)? {
            Some(metadata) if others_may_replace(&metadata) => {
                Err(PrivatePostgresError::WritableByOthers { path: path.to_owned() })
            }
            _ => Ok(()),
        }
    })
}

/// Checks that a file, and its target if it is a link, belongs to root or one of these users.
fn check_owner(path: &Path, users: &[u32]) -> Result<(), PrivatePostgresError> {
    for metadata in [fs::symlink_metadata(path), fs::metadata(path)] {
        match found(metadata, path)?.map(|metadata| metadata.uid()) {
            Some(owner) if owner != 0 && !users.contains(&owner) => {
                return Err(PrivatePostgresError::OfAnotherAccount { path: path.to_owned(), owner });
            }
            _ => {}
        }
    }
    Ok(())
}

fn found(metadata: io::Result<Metadata>, path: &Path) -> Result<Option<Metadata>, PrivatePostgresError> {
    match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PrivatePostgresError::io("look at", path)(error)),
    }
}

/// Returns whether users other than root may replace the content of a directory. A sticky directory,
/// such as /tmp, does not let users touch files of others.
fn others_may_replace(metadata: &Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let group = metadata.mode() & 0o020 != 0 && metadata.gid() != 0;
    let others = metadata.mode() & 0o002 != 0;
    metadata.is_dir() && metadata.mode() & STICKY == 0 && (group || others)
}
