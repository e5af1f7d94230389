//! Finds the record of an id: in a fresh cache, in Postgres, or in a stale cache while the database is
//! unavailable. The only file that knows the order in which freshness and cache are read. Used by the
//! engine, for secrets to verify and for callers' own.

use std::time::Duration;

use super::cache_generation::CacheGeneration;
use super::engine::Engine;
use super::loader::PendingRead;
use super::read_point::{LookupResult, ReadPoint};
use super::read_queue::Lane;
use super::{Consistency, VerdictError};
use crate::admission::hash_pool::Overloaded;
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::metrics::Lookup;
use crate::secret::TokenId;
use crate::store::StoreError;

/// How long Postgres is asked before a stale record is used instead: a working database answers
/// sooner, a silent one must not delay every call of the outage.
const STALE_FALLBACK_DELAY: Duration = Duration::from_millis(100);

impl Engine {
    /// Returns the current read point, if the cache may answer now.
    #[must_use]
    pub fn read_point(&self) -> Option<ReadPoint> {
        let instant = BootInstant::now();
        let reading = self.freshness.read(instant)?;
        if !reading.may_answer(self.freshness.bounds()) {
            self.metrics.engine.lookup(Lookup::Stale);
            return None;
        }
        Some(ReadPoint { instant, reading })
    }

    /// Returns whether the cache may answer now, fresh, or stale while the database is unavailable.
    #[must_use]
    pub fn may_answer(&self) -> bool {
        let bounds = self.freshness.bounds();
        let reading = self.freshness.read(BootInstant::now());
        reading.is_some_and(|reading| reading.may_answer(bounds) || reading.may_answer_stale(bounds))
    }

    /// Looks up a record in a fresh cache.
    pub(super) fn look_up(&self, id: TokenId) -> Option<LookupResult> {
        self.look_up_at(&self.read_point()?, id)
    }

    /// Looks up a record in a cache that is fresh at `read_point`, and counts the lookup.
    pub(super) fn look_up_at(&self, read_point: &ReadPoint, id: TokenId) -> Option<LookupResult> {
        let lookup = self.peek_at(read_point, id);
        self.metrics.engine.lookup(if lookup.is_some() { Lookup::Hit } else { Lookup::Miss });
        lookup
    }

    /// Looks up a record in a cache that is fresh at `read_point`, without counting the lookup.
    pub(super) fn peek_at(&self, read_point: &ReadPoint, id: TokenId) -> Option<LookupResult> {
        // Freshness first: read after the lookup, it could confirm a record that the feed removed in
        // between. It is an argument, so it cannot be later.
        let ReadPoint { instant, reading } = *read_point;
        let record = self.cache.get(id, instant)?;
        Some(LookupResult { record: Some(record), as_of: reading.as_of, now: reading.now, is_stale: false })
    }

    /// Returns whether a cache that is fresh at `read_point` has this very record.
    pub(super) fn still_has(
        &self,
        read_point: &ReadPoint,
        id: TokenId,
        record: &Record,
        generation: &CacheGeneration,
    ) -> bool {
        // As in `look_up_at`: the freshness was read before.
        let (removals, now) = (self.cache.removals(), read_point.instant.boot);
        if !generation.holds(removals, now) {
            if !self.cache.get(id, read_point.instant).is_some_and(|found| found.is(record)) {
                return false;
            }
            generation.found(removals, now);
        }
        self.metrics.engine.lookup(Lookup::Hit);
        true
    }

    /// Finds a record, in a fresh cache or else in Postgres.
    pub(super) async fn find(&self, id: TokenId, lane: Lane) -> Result<LookupResult, VerdictError> {
        match self.look_up(id) {
            Some(lookup) => Ok(lookup),
            None => self.finish(id, lane, Consistency::Bounded, self.loader.enqueue(id, lane)).await,
        }
    }

    /// Looks up a record in a cache that may answer while the database is unavailable.
    fn look_up_stale(&self, id: TokenId) -> Option<LookupResult> {
        let reading = self.freshness.read(BootInstant::now())?;
        if !reading.may_answer_stale(self.freshness.bounds()) {
            return None;
        }
        let record = self.cache.get_stale(id)?;
        Some(LookupResult { record: Some(record), as_of: reading.as_of, now: reading.now, is_stale: true })
    }

    /// Waits for a read; if Postgres cannot be read, a stale cache may answer.
    pub(super) async fn finish(
        &self,
        id: TokenId,
        lane: Lane,
        consistency: Consistency,
        reading: Result<PendingRead, Overloaded>,
    ) -> Result<LookupResult, VerdictError> {
        let read = self.read(id, lane, reading);
        if consistency == Consistency::Full || self.look_up_stale(id).is_none() {
            return read.await;
        }
        match tokio::time::timeout(STALE_FALLBACK_DELAY, read).await {
            Ok(Ok(lookup)) => Ok(lookup),
            Ok(Err(error)) => self.look_up_stale(id).ok_or(error),
            Err(_) => self.look_up_stale(id).ok_or_else(|| StoreError::DeadlineExceeded.into()),
        }
    }

    /// Waits for a read; one that was sent longer ago than the maximum staleness is sent once more.
    async fn read(
        &self,
        id: TokenId,
        lane: Lane,
        reading: Result<PendingRead, Overloaded>,
    ) -> Result<LookupResult, VerdictError> {
        let mut found = reading?.wait().await?;
        if BootInstant::now().since(found.read) > self.freshness.bounds().max_staleness {
            found = self.loader.enqueue(id, lane)?.wait().await?;
        }
        let fresh = self.freshness.read(BootInstant::now());
        let (as_of, now) = fresh.map_or((found.as_of, found.as_of), |fresh| fresh.with(found.as_of));
        Ok(LookupResult { record: found.record, as_of, now, is_stale: false })
    }
}
