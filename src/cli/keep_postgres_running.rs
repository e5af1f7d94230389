//! Keeps the private Postgres of a server running: restarts it if it ends by itself, and stops it
//! at the end. Serve runs this on a separate thread. Meanwhile the server sees an ordinary outage.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::private_postgres::{Cluster, Durability, PrivatePostgresError};

/// The interval of the checks.
const INTERVAL: Duration = Duration::from_millis(500);

/// The pause after a failed start.
const RESTART_DELAY: Duration = Duration::from_secs(5);

/// Keeps the cluster of this directory running until the other end of `until` is dropped, then stops it.
///
/// # Errors
/// The cluster did not stop. One that does not start is started again and again instead, since the server
/// reports that it is not serving.
pub(super) fn keep_running(
    cluster: Cluster,
    directory: &Path,
    until: &Receiver<()>,
) -> Result<(), PrivatePostgresError> {
    let mut current = Some(cluster);
    let mut pause = INTERVAL;
    while let Err(RecvTimeoutError::Timeout) = until.recv_timeout(pause) {
        if current.as_ref().is_some_and(Cluster::is_running) {
            continue;
        }
        // Releases the directory's lock, which the next start takes.
        drop(current.take());
        match Cluster::start(directory, Durability::Durable) {
            Ok(cluster) => {
                current = Some(cluster);
                pause = INTERVAL;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, retry_after = ?RESTART_DELAY, "cannot restart the private postgres");
                pause = RESTART_DELAY;
            }
        }
    }
    current.map_or(Ok(()), Cluster::stop)
}
