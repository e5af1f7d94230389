//! The limit of open files, of which each connection takes one: serve raises it as far as allowed
//! at its start, and lowers the limit of connections if that is not enough. Otherwise many clients
//! would block Postgres, probes and file access.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::Limits;

/// Files in addition to connections of clients and of the pool: the engine's own connections,
/// listeners, files that are read again, and a reserve.
const OTHER_FILES: u64 = 128;

/// Raises the soft limit, or lowers the limit of connections on each of `listeners` listeners.
pub(super) fn fit(limits: &mut Limits, listeners: u64, database_connections: u32) {
    let other_files = OTHER_FILES + u64::from(database_connections);
    let needed = other_files.saturating_add(listeners * limits.connections as u64);
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= needed {
        return;
    }
    let raised = Rlimit { current: Some(needed.min(hard)), maximum: limit.maximum };
    let open_files = if setrlimit(Resource::Nofile, raised).is_ok() { needed.min(hard) } else { soft };
    if open_files >= needed {
        return;
    }
    let asked = limits.connections;
    limits.connections = fitting(open_files, other_files, listeners);
    tracing::warn!(
        "the limit on open files is {open_files}, and --max-connections {asked} needs {needed}: each \
         listener accepts at most {} connections; raise the limit (LimitNOFILE, ulimit -Hn)",
        limits.connections
    );
}

/// Returns how many connections per listener the limit of open files allows, at least one.
fn fitting(open_files: u64, other_files: u64, listeners: u64) -> usize {
    // With a very low limit connections get a quarter, so that Postgres and the rest keep enough files.
    let left = open_files.saturating_sub(other_files).max(open_files / 4);
    usize::try_from(left / listeners.max(1)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_open_files_for_everything_else() {
        assert_eq!(fitting(1024, 144, 1), 880);
        assert_eq!(fitting(1024, 144, 2), 440);
        assert_eq!(fitting(100, 144, 1), 25);
        assert_eq!(fitting(1, 144, 2), 1);
    }
}
