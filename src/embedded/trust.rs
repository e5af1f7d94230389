//! Whether root may use what it finds in a data directory: Postgres is run on it, and its keyring believed. What another
//! account owns, or could put something else in place of, is refused. Called before anything there is opened.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::account::{is_root, unprivileged_users};
use super::error::EmbeddedError;

/// What lies in a data directory, beside what is Postgres's own.
const OURS: [&str; 4] = ["keyring", "root-secret", "lock", "postgres.log"];

/// What the account that runs Postgres owns.
const OF_POSTGRES: [&str; 3] = ["postgres", "postgres.new", "postgres-socket"];

/// Checks the way to the directory, the directory, and what is in it. Only for root: Postgres itself refuses what
/// belongs to another account than an ordinary one's own.
///
/// # Errors
/// [`EmbeddedError::OfAnotherAccount`] and [`EmbeddedError::WritableByOthers`].
pub(super) fn check(directory: &Path) -> Result<(), EmbeddedError> {
    if !is_root() {
        return Ok(());
    }
    check_way(directory)?;
    // Where links lead, too; none are left in that way.
    if let Ok(resolved) = fs::canonicalize(directory) {
        check_way(&resolved)?;
    }
    for name in OURS {
        check_owner(&directory.join(name), &[])?;
    }
    let users = unprivileged_users();
    OF_POSTGRES.into_iter().try_for_each(|name| check_owner(&directory.join(name), &users))
}

/// Checks that nobody but root decides what a path leads to.
fn check_way(path: &Path) -> Result<(), EmbeddedError> {
    path.ancestors().filter(|path| !path.as_os_str().is_empty()).try_for_each(|path| {
        check_owner(path, &[])?;
        match found(fs::symlink_metadata(path), path)? {
            Some(metadata) if others_may_replace(&metadata) => {
                Err(EmbeddedError::WritableByOthers { path: path.to_owned() })
            }
            _ => Ok(()),
        }
    })
}

/// Checks that what is there, and what it leads to if it is a link, is root's or one of these users'.
fn check_owner(path: &Path, users: &[u32]) -> Result<(), EmbeddedError> {
    for metadata in [fs::symlink_metadata(path), fs::metadata(path)] {
        match found(metadata, path)?.map(|metadata| metadata.uid()) {
            Some(owner) if owner != 0 && !users.contains(&owner) => {
                return Err(EmbeddedError::OfAnotherAccount { path: path.to_owned(), owner });
            }
            _ => {}
        }
    }
    Ok(())
}

fn found(metadata: io::Result<Metadata>, path: &Path) -> Result<Option<Metadata>, EmbeddedError> {
    match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::io("look at", path)(error)),
    }
}

/// Tells whether others than root may put something else in place of what is in a directory. A sticky one, such as
/// /tmp, lets nobody touch what is another's.
fn others_may_replace(metadata: &Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let group = metadata.mode() & 0o020 != 0 && metadata.gid() != 0;
    let others = metadata.mode() & 0o002 != 0;
    metadata.is_dir() && metadata.mode() & STICKY == 0 && (group || others)
}
