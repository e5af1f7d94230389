//! A worker of the loader: takes a batch off the queue, reads it on its own connection and answers all
//! waiting callers. A broken connection is replaced; while the database is unavailable, callers get an
//! error at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quick_cache::DefaultHashBuilder;
use time::OffsetDateTime;
use tokend_core::fill_guard::Lease;
use tokio::time::Instant;

use super::cache::Cache;
use super::read_queue::{Found, Outcome, ReadQueue, WORKERS, Waiters};
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::secret::TokenId;
use crate::store::{Connection, StoreError};

/// The longest time of a query, and the delay before a failed connection is opened again.
const QUERY_DEADLINE: Duration = Duration::from_millis(1_500);
const BACKOFF: Duration = Duration::from_millis(100);

/// A worker and its connection.
pub(super) struct Worker {
    shared: Arc<ReadQueue>,
    /// A connection, and the count of doubts when it was opened.
    connection: Option<(Connection, u64)>,
    failed: Option<(Instant, Arc<StoreError>)>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After a panic another worker replaces this one, and it has not failed.
        if self.failed.take().is_some() {
            self.shared.failing.fetch_sub(1, Ordering::Relaxed);
        }
        // The work that this worker was notified of is still queued.
        self.shared.arrived.notify_one();
    }
}

/// A read in progress; it fills nothing unless it ends normally.
struct ReadInProgress<'a> {
    cache: &'a Cache,
    lease: Lease,
}

impl Drop for ReadInProgress<'_> {
    fn drop(&mut self) {
        self.cache.abandon_read(&self.lease);
    }
}

/// The result of a batch.
struct Batch {
    records: HashMap<TokenId, Record, DefaultHashBuilder>,
    unreadable: HashMap<TokenId, Arc<StoreError>, DefaultHashBuilder>,
    as_of: OffsetDateTime,
    read: BootInstant,
}

impl Worker {
    /// Creates a worker that has no connection yet.
    pub(super) fn new(shared: Arc<ReadQueue>) -> Self {
        Self { shared, connection: None, failed: None }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.recover().await;
            // Callers that are about to queue a read do so first, and join the same query.
            tokio::task::yield_now().await;
            let batch = self.shared.take();
            if batch.is_empty() {
                self.shared.arrived.notified().await;
                continue;
            }
            let ids: Vec<TokenId> = batch.iter().map(|(id, _)| *id).collect();
            let began = Instant::now();
            let outcome = self.read(&ids).await;
            let took = began.elapsed();
            self.shared.learn(took);
            self.shared.metrics.engine.batch(ids.len(), took, outcome.is_ok());
            match outcome {
                Ok(Batch { records, unreadable, as_of, read }) => {
                    for (id, waiters) in batch {
                        let outcome = match unreadable.get(&id) {
                            Some(error) => Err(Arc::clone(error)),
                            None => Ok(Found { record: records.get(&id).cloned(), as_of, read }),
                        };
                        answer(waiters, &outcome);
                    }
                }
                Err(error) => {
                    let error = Err(error);
                    for (_, waiters) in batch {
                        answer(waiters, &error);
                    }
                }
            }
        }
    }

    /// Opens a new connection after a failure while other workers are healthy: failing at once, this
    /// worker would take what they could answer.
    async fn recover(&mut self) {
        while let Some((at, _)) = &self.failed
            && self.shared.failing.load(Ordering::Relaxed) < WORKERS
        {
            let rest = BACKOFF.saturating_sub(at.elapsed());
            // The notification of new work may have come here.
            self.shared.arrived.notify_one();
            tokio::time::sleep(rest).await;
            let doubts = self.shared.connector.doubts();
            let opened =
                self.shared.connector.open_for_records().await.map(|connection| (connection, doubts));
            self.connection = self.note(opened).ok();
        }
    }

    /// Records whether the database could be read.
    fn note<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, Arc<StoreError>> {
        let before = self.failed.take();
        match (&before, &outcome) {
            (None, Err(_)) => self.shared.failing.fetch_add(1, Ordering::Relaxed),
            (Some(_), Ok(_)) => self.shared.failing.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        outcome.map_err(|error| {
            let error = Arc::new(error);
            self.failed = Some((Instant::now(), Arc::clone(&error)));
            error
        })
    }

    /// Reads a batch; once more on a new connection if the first one was broken or led to another
    /// server.
    async fn read(&mut self, ids: &[TokenId]) -> Result<Batch, Arc<StoreError>> {
        if let Some((at, error)) = &self.failed
            && at.elapsed() < BACKOFF
        {
            return Err(Arc::clone(error));
        }
        let attempt = match self.attempt(ids).await {
            Err(error) if !matches!(error, StoreError::DeadlineExceeded) => self.attempt(ids).await,
            outcome => outcome,
        };
        self.note(attempt)
    }

    async fn attempt(&mut self, ids: &[TokenId]) -> Result<Batch, StoreError> {
        let (cache, freshness) = (&self.shared.cache, &self.shared.freshness);
        let epoch = freshness.epoch().ok_or(StoreError::Starting)?;
        // Taken out: a connection that fails or is dropped is not put back.
        let doubts = self.shared.connector.doubts();
        let mut connection = match self.connection.take().filter(|(_, opened)| *opened == doubts) {
            Some((connection, _)) => connection,
            None => self.shared.connector.open_for_records().await?,
        };
        let in_progress = ReadInProgress { cache, lease: cache.begin_read() };
        let read = BootInstant::now();
        let loaded = connection.load_records(ids, |id| cache.get_stale(id), &epoch, QUERY_DEADLINE).await;
        let loaded = loaded.inspect_err(|error| match error {
            StoreError::OtherServer => self.shared.feed.notify_one(),
            StoreError::DeadlineExceeded => self.shared.connector.doubt(),
            _ => {}
        })?;
        let records: HashMap<_, _, _> = loaded.records.into_iter().collect();
        // A record whose MAC is about to be replaced is not worth caching.
        let keyring = self.shared.keyring.peek();
        let known = |(_, record): &(&TokenId, &Record)| keyring.contains(record.mac().key_id);
        let lasting = records.iter().filter(known).map(|(id, record)| (*id, record.clone()));
        cache.end_read(&in_progress.lease, read, lasting);
        self.connection = Some((connection, doubts));
        let unreadable = loaded.unreadable.into_iter().map(|(id, error)| (id, Arc::new(error))).collect();
        Ok(Batch { records, unreadable, as_of: loaded.as_of, read })
    }
}

fn answer(waiters: Waiters, outcome: &Outcome) {
    for waiter in waiters {
        // A caller that has gone away misses nothing.
        let _ = waiter.send(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::unconnected;

    #[tokio::test]
    async fn a_dropped_worker_wakes_another_and_does_not_count_as_failed() {
        let shared = Arc::new(unconnected::read_queue());
        let mut worker = Worker::new(Arc::clone(&shared));
        let failure: Result<(), _> = Err(StoreError::Starting);
        assert!(worker.note(failure).is_err());
        assert_eq!(shared.failing.load(Ordering::Relaxed), 1);

        drop(worker);

        assert_eq!(shared.failing.load(Ordering::Relaxed), 0);
        let woken = tokio::time::timeout(Duration::ZERO, shared.arrived.notified()).await;
        assert!(woken.is_ok(), "another worker takes what this one was notified of");
    }

    #[tokio::test]
    async fn a_worker_that_recovers_passes_its_notification_on() {
        let shared = Arc::new(unconnected::read_queue());
        let mut worker = Worker::new(Arc::clone(&shared));
        let failure: Result<(), _> = Err(StoreError::Starting);
        assert!(worker.note(failure).is_err());

        let recovered = tokio::time::timeout(Duration::ZERO, worker.recover()).await;

        assert!(recovered.is_err(), "it waits before it connects again");
        let woken = tokio::time::timeout(Duration::ZERO, shared.arrived.notified()).await;
        assert!(woken.is_ok(), "another worker takes what this one was notified of");
    }

    #[tokio::test]
    async fn a_read_that_ends_early_is_abandoned() {
        let shared = unconnected::read_queue();
        let lease = shared.cache.begin_read();
        assert!(!shared.cache.is_idle());

        drop(ReadInProgress { cache: &shared.cache, lease });

        assert!(shared.cache.is_idle());
    }
}
