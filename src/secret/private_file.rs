//! Checks whether a file with a secret is protected from other users. Called by code that reads a
//! keyring, a TLS key or a database password; knows nothing of the content.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// All permissions of the group and others.
const ANYTHING_TO_OTHERS: u32 = 0o077;

/// All permissions of the group and others, except the group's read permission.
const MORE_THAN_GROUP_READS: u32 = 0o037;

/// Returns whether users other than the owner can use the file.
///
/// A file owned by root may be readable by its group (Postgres has the same rule for its key):
/// Kubernetes mounts a secret for a pod's `fsGroup` this way, systemd a credential, and neither can use
/// mode 0600 for another account.
#[must_use]
pub fn is_exposed(file: &Metadata) -> bool {
    exposed(file.uid(), file.mode())
}

fn exposed(owner: u32, mode: u32) -> bool {
    let private = if owner == 0 { MORE_THAN_GROUP_READS } else { ANYTHING_TO_OTHERS };
    mode & private != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_readable_only_by_its_owner() {
        for mode in [0o100_600, 0o100_400, 0o100_700] {
            assert!(!exposed(1000, mode) && !exposed(0, mode), "{mode:o}");
        }
        for mode in [0o100_640, 0o100_440, 0o100_620, 0o100_610, 0o100_604, 0o100_602, 0o100_601] {
            assert!(exposed(1000, mode), "{mode:o}");
        }
    }

    #[test]
    fn root_may_allow_one_group_to_read_and_nothing_else() {
        for mode in [0o100_640, 0o100_440] {
            assert!(!exposed(0, mode), "{mode:o}");
        }
        for mode in [0o100_660, 0o100_650, 0o100_644, 0o100_604, 0o100_602, 0o100_601] {
            assert!(exposed(0, mode), "{mode:o}");
        }
    }
}
