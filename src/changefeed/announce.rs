//! Announces to the other replicas that this one has changed something, right after the commit, so that
//! they poll at once. Best effort, at most every 2 ms: a NOTIFY inside the transaction would take a
//! lock that all commits share. Started by the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::{Connection, Connector};

/// The shortest interval between two announcements.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// Announces each time `changed` is notified, until the server stops the task.
pub async fn run(changed: Arc<Notify>, connector: Connector) {
    let mut connection: Option<Connection> = None;
    loop {
        changed.notified().await;
        // Two attempts: an idle connection may be broken. If both fail, the other replicas see this
        // change at their next poll.
        for _ in 0..2 {
            if connection.is_none() {
                connection = connector.open().await.ok();
            }
            let Some(open) = &mut connection else { break };
            if open.announce().await.is_ok() {
                break;
            }
            connection = None;
        }
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}
