//! Finding a record for an id: in a cache that is fresh, in Postgres, or in an old cache that stands in for a database
//! that is away. The only file that knows the order in which freshness and cache are read. Used by the engine, for
//! secrets that are asked about and for callers' own.

use std::time::Duration;

use super::cache_generation::CacheGeneration;
use super::engine::Engine;
use super::loader::Reading;
use super::read_point::{Looked, ReadPoint};
use super::read_queue::Lane;
use super::{Consistency, Unknown};
use crate::admission::hash_pool::Overloaded;
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::metrics::Lookup;
use crate::secret::TokenId;
use crate::store::StoreError;

/// How long Postgres is asked before a record that may stand in for it does: a database that is there answers
/// sooner, one that is silent must not hold up every call of the outage.
const STAND_IN_AFTER: Duration = Duration::from_millis(100);

impl Engine {
    /// Tells what time it is, if the cache may answer now.
    #[must_use]
    pub fn present(&self) -> Option<ReadPoint> {
        let moment = BootInstant::now();
        let reading = self.freshness.read(moment)?;
        if !reading.may_answer(self.freshness.bounds()) {
            self.metrics.engine.lookup(Lookup::Stale);
            return None;
        }
        Some(ReadPoint { moment, reading })
    }

    /// Tells whether the cache may answer now, by itself or in place of a database that is away.
    #[must_use]
    pub fn may_answer(&self) -> bool {
        let bounds = self.freshness.bounds();
        let reading = self.freshness.read(BootInstant::now());
        reading.is_some_and(|reading| reading.may_answer(bounds) || reading.may_stand_in(bounds))
    }

    /// Looks a record up in a fresh cache.
    pub(super) fn look_up(&self, id: TokenId) -> Option<Looked> {
        self.look_up_at(&self.present()?, id)
    }

    /// Does the same in a cache that is fresh at `present`.
    pub(super) fn look_up_at(&self, present: &ReadPoint, id: TokenId) -> Option<Looked> {
        let looked = self.peek_at(present, id);
        self.metrics.engine.lookup(if looked.is_some() { Lookup::Hit } else { Lookup::Miss });
        looked
    }

    /// Does the same, and does not count it.
    pub(super) fn peek_at(&self, present: &ReadPoint, id: TokenId) -> Option<Looked> {
        // The freshness first: read after the lookup, it could vouch for a record that the feed removed
        // in between. It comes as an argument, so it cannot be later.
        let ReadPoint { moment, reading } = *present;
        let record = self.cache.get(id, moment)?;
        Some(Looked { record: Some(record), as_of: reading.as_of, now: reading.now, standing_in: false })
    }

    /// Tells whether a cache that is fresh at `present` has this very record.
    pub(super) fn still_has(
        &self,
        present: &ReadPoint,
        id: TokenId,
        record: &Record,
        seen: &CacheGeneration,
    ) -> bool {
        // As in `look_up_at`: the freshness was read before.
        let (removals, now) = (self.cache.removals(), present.moment.boot);
        if !seen.holds(removals, now) {
            if !self.cache.get(id, present.moment).is_some_and(|found| found.is(record)) {
                return false;
            }
            seen.found(removals, now);
        }
        self.metrics.engine.lookup(Lookup::Hit);
        true
    }

    /// Finds a record, in a fresh cache or else in Postgres.
    pub(super) async fn find(&self, id: TokenId, lane: Lane) -> Result<Looked, Unknown> {
        match self.look_up(id) {
            Some(looked) => Ok(looked),
            None => self.finish(id, lane, Consistency::Bounded, self.loader.ask(id, lane)).await,
        }
    }

    /// Looks a record up in a cache that may stand in for a database that is away.
    fn look_up_old(&self, id: TokenId) -> Option<Looked> {
        let reading = self.freshness.read(BootInstant::now())?;
        if !reading.may_stand_in(self.freshness.bounds()) {
            return None;
        }
        let record = self.cache.get_old(id)?;
        Some(Looked { record: Some(record), as_of: reading.as_of, now: reading.now, standing_in: true })
    }

    /// Waits for a read; if Postgres cannot be asked, an old cache may stand in.
    pub(super) async fn finish(
        &self,
        id: TokenId,
        lane: Lane,
        consistency: Consistency,
        reading: Result<Reading, Overloaded>,
    ) -> Result<Looked, Unknown> {
        let read = self.read(id, lane, reading);
        if consistency == Consistency::Full || self.look_up_old(id).is_none() {
            return read.await;
        }
        match tokio::time::timeout(STAND_IN_AFTER, read).await {
            Ok(Ok(looked)) => Ok(looked),
            Ok(Err(error)) => self.look_up_old(id).ok_or(error),
            Err(_) => self.look_up_old(id).ok_or_else(|| StoreError::DeadlineExceeded.into()),
        }
    }

    /// Waits for a read; one that was sent longer ago than the cache may be old is sent once more.
    async fn read(
        &self,
        id: TokenId,
        lane: Lane,
        reading: Result<Reading, Overloaded>,
    ) -> Result<Looked, Unknown> {
        let mut found = reading?.wait().await?;
        if BootInstant::now().since(found.read) > self.freshness.bounds().max_staleness {
            found = self.loader.ask(id, lane)?.wait().await?;
        }
        let fresh = self.freshness.read(BootInstant::now());
        let (as_of, now) = fresh.map_or((found.as_of, found.as_of), |fresh| fresh.with(found.as_of));
        Ok(Looked { record: found.record, as_of, now, standing_in: false })
    }
}
