//! Keeps the private Postgres running beside a server: starts it again when it has ended by
//! itself, and stops it at the end.
//!
//! Serve gives it a thread of its own. Meanwhile the server sees an outage like any other.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::embedded::{Cluster, Durability, EmbeddedError};

/// How often it is looked after.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long nothing is tried after a start that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Looks after the cluster of this directory until the other end of `until` has gone, then stops it.
///
/// # Errors
/// The cluster did not stop. One that does not start is tried again and again instead, since
/// the server says to everybody that it is not serving.
pub(super) fn keep_running(
    cluster: Cluster,
    directory: &Path,
    until: &Receiver<()>,
) -> Result<(), EmbeddedError> {
    let mut kept = Some(cluster);
    let mut pause = INTERVAL;
    while let Err(RecvTimeoutError::Timeout) = until.recv_timeout(pause) {
        if kept.as_ref().is_some_and(Cluster::is_running) {
            continue;
        }
        // Gives up the directory's lock, which the next start takes.
        drop(kept.take());
        match Cluster::start(directory, Durability::Durable) {
            Ok(cluster) => {
                kept = Some(cluster);
                pause = INTERVAL;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, retry_after = ?PAUSE, "private postgres does not start again");
                pause = PAUSE;
            }
        }
    }
    kept.map_or(Ok(()), Cluster::stop)
}
