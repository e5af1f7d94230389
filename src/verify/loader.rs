//! Reads records in batches: a few workers, each with its own connection to Postgres, take all waiting
//! ids and send one query. Called by the engine for cache misses and for every FULL read. A caller
//! joins only a query that has not been sent, so that its record was read after the request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::VerdictError;
use super::cache::Cache;
use super::read_queue::{Found, Lane, Outcome, ReadQueue, WORKERS};
use super::worker::Worker;
use crate::admission::hash_pool::Overloaded;
use crate::changefeed::freshness::Freshness;
use crate::metrics::{Metrics, Task};
use crate::runtime::deadline;
use crate::runtime::tasks::Tasks;
use crate::secret::{CurrentKeyring, TokenId};
use crate::store::{Connector, StoreError};

/// How long a caller waits.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// A read in progress.
#[derive(Debug)]
pub(super) struct PendingRead(oneshot::Receiver<Outcome>);

/// Passes reads to the workers; they stop when it is dropped.
#[derive(Debug)]
pub(super) struct Loader {
    shared: Arc<ReadQueue>,
    workers: Tasks,
}

impl Loader {
    /// Starts the workers. `feed` is notified when a connection leads to another server than the
    /// feed's.
    pub(super) fn start(
        connector: Connector,
        cache: Arc<Cache>,
        freshness: Arc<Freshness>,
        keyring: Arc<CurrentKeyring>,
        feed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(ReadQueue::new(connector, cache, freshness, keyring, feed, metrics));
        let mut workers = Tasks::new(Arc::clone(&shared.metrics));
        for _ in 0..WORKERS {
            let shared = Arc::clone(&shared);
            workers.keep(Task::Loader, move || Worker::new(Arc::clone(&shared)).run());
        }
        Self { shared, workers }
    }

    /// Returns whether any worker works.
    pub(super) fn works(&self) -> bool {
        self.workers.down() < WORKERS
    }

    /// Starts this many more workers, which panic each time.
    #[cfg(test)]
    pub(super) fn panic(&mut self, workers: usize) {
        for _ in 0..workers {
            self.workers.keep(Task::Loader, || async { panic!("meant to") });
        }
    }

    /// Returns how many workers are down.
    #[cfg(test)]
    pub(super) fn down(&self) -> usize {
        self.workers.down()
    }

    /// Returns how many records are queued.
    pub(super) fn waiting(&self) -> u64 {
        self.shared.waiting()
    }

    /// Queues a record for a query that is sent after this call.
    pub(super) fn enqueue(&self, id: TokenId, lane: Lane) -> Result<PendingRead, Overloaded> {
        self.shared.enqueue(id, lane).map(PendingRead)
    }
}

impl PendingRead {
    /// Waits for the result of the read.
    pub(super) async fn wait(self) -> Result<Found, VerdictError> {
        match tokio::time::timeout(deadline::at_most(READ_TIMEOUT), self.0).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            // The worker is gone: it has panicked, or the server is stopping.
            Ok(Err(_)) => Err(StoreError::Starting.into()),
            Err(_) => Err(StoreError::DeadlineExceeded.into()),
        }
    }
}
