//! What the server reads of an engine beside verdicts: whether it works, its sizes, and what its other parts wait for.

use std::sync::Arc;

use tokio::sync::Notify;

use super::VerdictError;
use super::engine::Engine;
use super::read_queue::Lane;
use crate::admission::hash_pool::Overloaded;
use crate::clock::BootInstant;
use crate::domain::usage::UseCount;
use crate::metrics::EngineSample;
#[cfg(test)]
use crate::metrics::Task;
use crate::secret::TokenId;
use crate::usage::Usage;

/// The id of no token.
const NO_TOKEN: TokenId = TokenId::from_bytes([0; 16]);

impl Engine {
    /// Returns whether the feed has reached the database since the start, and the cache answers or will
    /// not answer soon.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.freshness.is_registered() || self.freshness.epoch().is_some() && self.registration.has_failed()
    }

    /// Returns whether the database recorded changes at the latest poll.
    #[must_use]
    pub fn receives_changes(&self) -> bool {
        self.freshness.receives_changes()
    }

    /// Returns whether its parts work: the feed, and at least one worker of the loader.
    #[must_use]
    pub fn works(&self) -> bool {
        self.tasks.down() == 0 && self.limits.works() && self.loader.works()
    }

    /// Returns what was leased of limits; leases no more.
    pub async fn close(&self) {
        self.limits.close().await;
    }

    /// Starts more workers of the loader, which panic each time.
    #[cfg(test)]
    pub(crate) fn panic_in_workers(&mut self, workers: usize) {
        self.loader.panic(workers);
    }

    /// Starts another feed, which panics each time.
    #[cfg(test)]
    pub(crate) fn panic_in_feed(&mut self) {
        self.tasks.keep(Task::Feed, || async { panic!("meant to") });
    }

    /// Checks that Postgres responds, by the same path that reads records.
    ///
    /// # Errors
    /// [`VerdictError`]: Postgres or the loader does not respond.
    pub async fn probe(&self) -> Result<(), VerdictError> {
        match self.loader.enqueue(NO_TOKEN, Lane::Secret) {
            Ok(reading) => reading.wait().await.map(drop),
            // Other records are being read.
            Err(Overloaded) => Ok(()),
        }
    }

    /// Returns its sizes and ages, for metrics.
    #[must_use]
    pub fn sample(&self) -> EngineSample {
        let (records, bytes) = self.cache.size();
        EngineSample {
            records,
            bytes,
            waiting: self.loader.waiting(),
            noted: self.usage.noted(),
            age: self.freshness.read(BootInstant::now()).map(|reading| reading.age),
        }
    }

    /// Returns what is notified whenever the feed has received changes.
    #[must_use]
    pub fn new_changes(&self) -> Arc<Notify> {
        Arc::clone(&self.new_changes)
    }

    /// Makes the feed poll the database now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns what is notified whenever this replica has changed something.
    #[must_use]
    pub fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Returns what was counted of verifications.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Waits until counts should be taken early, because they keep records in memory that left the cache.
    pub async fn usage_is_due(&self) {
        self.cache.kept().due().await;
    }

    /// Takes what was counted of verifications.
    #[must_use]
    pub fn take_usage(&self) -> Vec<UseCount> {
        self.cache.kept().reset();
        self.usage.take()
    }
}
