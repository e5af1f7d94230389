//! Tells the other replicas that something was changed here, right after the commit, so that they look at
//! once instead of at their next poll. Best effort and at most every 2 ms: in the transaction itself a NOTIFY
//! would take a lock that all commits share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::{Connection, Connector};

/// The least time between two announcements.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// Announces whenever `changed` is notified, until the server stops it.
pub async fn run(changed: Arc<Notify>, lines: Connector) {
    let mut line: Option<Connection> = None;
    loop {
        changed.notified().await;
        // Twice: a line that has lain idle may be broken. After that nobody hears of this change before
        // their next poll.
        for _ in 0..2 {
            if line.is_none() {
                line = lines.open().await.ok();
            }
            let Some(open) = &mut line else { break };
            if open.announce().await.is_ok() {
                break;
            }
            line = None;
        }
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}
