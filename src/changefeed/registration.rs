//! Registers this replica so that a failover does not lose it; before that, the cache answers nothing.
//! With synchronous replication the commit waits until a standby confirms it. Meanwhile verdicts are read
//! from Postgres. Renewals do not wait. One task, started by the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::{Connector, StoreError};

/// The longest time of one attempt: longer than a statement may take, so that at most one attempt
/// waits.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(6);

/// The delay before a failed attempt is retried.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Whether the replica's row is known to survive a failover of the server that answers.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The replica's id in the database.
    pub(crate) replica: Uuid,
    /// The maximum age of its responses.
    pub(crate) bound: Duration,
    confirmed: AtomicBool,
    failed: AtomicBool,
    missing: Notify,
}

impl Registration {
    pub(crate) fn new(replica: Uuid, bound: Duration) -> Self {
        Self {
            replica,
            bound,
            confirmed: AtomicBool::default(),
            failed: AtomicBool::default(),
            missing: Notify::default(),
        }
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Returns whether an attempt has failed: the cache may not answer for a long time.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Requests that the row be written again: it no longer exists.
    pub(crate) fn lost(&self) {
        self.confirmed.store(false, Ordering::Release);
        self.missing.notify_one();
    }

    /// Writes the row whenever it is missing, and wakes the feed. Never returns.
    pub(crate) async fn keep(self: Arc<Self>, connector: Connector, feed: Arc<Notify>) {
        let mut failing = false;
        loop {
            if self.is_confirmed() {
                self.missing.notified().await;
                continue;
            }
            let registered = async {
                connector.open().await?.register_replica(self.replica, self.bound, ATTEMPT_DEADLINE).await
            };
            match registered.await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("this replica is registered in the database: its cache is in use");
                    }
                    self.confirmed.store(true, Ordering::Release);
                    feed.notify_one();
                }
                Err(error) => {
                    let starting = matches!(error, StoreError::Starting);
                    self.failed.fetch_or(!starting, Ordering::Relaxed);
                    if !starting && !std::mem::replace(&mut failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "the database does not confirm the registration of this replica, perhaps because \
                             a standby is missing: until it does, every verdict is read from the database"
                        );
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
