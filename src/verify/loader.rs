//! Reads records for whoever waits: a few workers, each with a line of its own to Postgres, take all ids that
//! wait and ask once. Called by the engine for what the cache cannot answer, and for every FULL read. A
//! caller joins only a query that has not been sent, so that what it gets was read after it asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Unknown;
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
const PATIENCE: Duration = Duration::from_secs(3);

/// A read that is waited for.
#[derive(Debug)]
pub(super) struct Reading(oneshot::Receiver<Outcome>);

/// The way to the workers; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Loader {
    shared: Arc<ReadQueue>,
    workers: Tasks,
}

impl Loader {
    /// Starts the workers. `feed` is notified when a line leads to another server than the feed's.
    pub(super) fn start(
        lines: Connector,
        cache: Arc<Cache>,
        freshness: Arc<Freshness>,
        keyring: Arc<CurrentKeyring>,
        feed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(ReadQueue::new(lines, cache, freshness, keyring, feed, metrics));
        let mut workers = Tasks::new(Arc::clone(&shared.metrics));
        for _ in 0..WORKERS {
            let shared = Arc::clone(&shared);
            workers.keep(Task::Loader, move || Worker::new(Arc::clone(&shared)).run());
        }
        Self { shared, workers }
    }

    /// Tells whether any worker works.
    pub(super) fn works(&self) -> bool {
        self.workers.down() < WORKERS
    }

    /// Returns how many records wait to be asked for.
    pub(super) fn waiting(&self) -> u64 {
        self.shared.waiting()
    }

    /// Has a record read by a query that is sent after this call.
    pub(super) fn ask(&self, id: TokenId, lane: Lane) -> Result<Reading, Overloaded> {
        self.shared.ask(id, lane).map(Reading)
    }
}

impl Reading {
    /// Waits for what was read.
    pub(super) async fn wait(self) -> Result<Found, Unknown> {
        match tokio::time::timeout(deadline::at_most(PATIENCE), self.0).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            // A worker that is gone: it has panicked, or the server is ending.
            Ok(Err(_)) => Err(StoreError::Starting.into()),
            Err(_) => Err(StoreError::DeadlineExceeded.into()),
        }
    }
}
