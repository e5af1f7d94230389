//! Tells the other replicas that something was changed here, right after the commit, so that they look at
//! once instead of at their next poll. Best effort and at most every 2 ms: in the transaction itself a NOTIFY
//! would take a lock that all commits share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::{Line, Lines};

/// The least time between two announcements.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// Announces whenever `changed` is notified, until the server stops it.
pub async fn run(changed: Arc<Notify>, lines: Lines) {
    let mut line: Option<Line> = None;
    loop {
        changed.notified().await;
        if line.is_none() {
            line = lines.open().await.ok();
        }
        if let Some(open) = &mut line
            && open.announce().await.is_err()
        {
            // Nobody hears of this change before their next poll; the next one gets a new line.
            line = None;
        }
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}
