//! Announces to the other replicas that this one has changed something, right after the commit, so that
//! they poll at once; and hears their announcements. Best effort, at most every 2 ms: a NOTIFY inside the
//! transaction would take a lock that all commits share. Started by the server and the engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::{Connection, Connector};

/// The shortest interval between two announcements.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// The delay before a connection that heard nothing more is replaced.
const RETRY_DELAY: Duration = Duration::from_millis(100);

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

/// Wakes the feed whenever a replica announces a change; without it, the feed only polls.
pub(crate) async fn listen(connector: Connector, wake: Arc<Notify>) {
    loop {
        if let Ok(mut listener) = connector.listen().await {
            wake.notify_one();
            while listener.heard().await {
                wake.notify_one();
            }
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}
