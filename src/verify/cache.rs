//! Records of tokens, bounded in bytes, least useful out first. Filled by the loader, emptied by the feed,
//! read by every Verify. Holds MACs and metadata, never a secret; and never that a token does not exist.

use std::sync::Arc;

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use tokend_core::fill_guard::{FillGuard, Lease};

use super::cache_generation::Removals;
use crate::changefeed::feed::Invalidation;
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::metrics::Metrics;
use crate::secret::TokenId;

/// What a record counts for at least, so that it is known how many there can be: the tables are made for that
/// many at once and never grow. Below what one with a few scopes and labels takes.
const LEAST: u64 = 288;

/// What the tables have for each record: a slot (id, record, times, links), and a place in the index, which is a
/// power of two. As `tests/memory` measures them.
const SLOT: u64 = 56;
const INDEX: u64 = 6;

/// For so many records that there can be, one that has made room is remembered, by its hash: when it comes back,
/// it has been used often enough to stay. Each takes a slot, too.
const REMEMBERED: u64 = 8;

/// Slots to spare in each shard of the table: it gives one up a moment later than it takes one.
const SPARE: u64 = 64;

/// How long a record is used before it is read again although no change of it was seen, in nanoseconds.
const MAX_AGE: i64 = 600 * 1_000_000_000;

/// A record, and when it is to be read again, by the boot clock in nanoseconds.
#[derive(Debug, Clone)]
struct Kept {
    record: Record,
    read_again: i64,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<TokenId, Kept> for Weight {
    fn weight(&self, _: &TokenId, kept: &Kept) -> u64 {
        handed_out(kept.record.bytes() as u64).max(LEAST)
    }
}

/// Returns how many bytes the allocator hands out for so many: mimalloc has four sizes for each doubling.
fn handed_out(bytes: u64) -> u64 {
    let step = (bytes.saturating_sub(1).max(64).ilog2() - 2).min(12);
    bytes.next_multiple_of(1 << step)
}

type Records = QuickCache<TokenId, Kept, Weight, DefaultHashBuilder, Evictions>;

/// Counts what makes room for others.
#[derive(Debug, Clone)]
struct Evictions(Arc<Metrics>);

impl Lifecycle<TokenId, Kept> for Evictions {
    type RequestState = Entering;

    fn on_evict(&self, entering: &mut Entering, id: TokenId, _: Kept) {
        // What is replaced by a newer reading of itself comes here, too.
        if entering.0 != Some(id) {
            self.0.engine.evicted();
        }
    }
}

/// Which record is being put into the cache.
#[derive(Debug, Default)]
struct Entering(Option<TokenId>);

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    records: Records,
    /// What the tables take, in bytes.
    tables: u64,
    gate: FillGuard<TokenId>,
    removals: Removals,
}

impl Cache {
    /// Makes a cache of at most `bytes` bytes, its tables included.
    #[must_use]
    pub(super) fn new(bytes: u64, metrics: Arc<Metrics>) -> Self {
        let each = LEAST + SLOT + SLOT / REMEMBERED + INDEX;
        let most = bytes / each;
        let remembered = most / REMEMBERED;
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let hasher = DefaultHashBuilder::default();
        // Half as many as it is told to expect are remembered.
        let records = QuickCache::with(count(2 * remembered), bytes, Weight, hasher, Evictions(metrics));
        let spare = SPARE * records.num_shards() as u64;
        records.reserve(count(most + spare));
        let tables = (most + spare + remembered) * SLOT + records.memory_used().map as u64;
        records.set_capacity(bytes.saturating_sub(tables));
        Self { records, tables, gate: FillGuard::new(), removals: Removals::new() }
    }

    /// Returns how many records there are, and how many bytes they and the tables take.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.records.len() as u64, self.tables + self.records.weight())
    }

    /// Looks a record up; one that is to be read again is not found.
    pub(super) fn get(&self, id: TokenId, now: BootInstant) -> Option<Record> {
        self.records.get(&id).filter(|kept| now.boot < kept.read_again).map(|kept| kept.record)
    }

    /// Looks a record up, also one that is to be read again: for when nothing can be read.
    pub(super) fn get_old(&self, id: TokenId) -> Option<Record> {
        self.records.get(&id).map(|kept| kept.record)
    }

    /// Returns how often something has been removed; what only made room for others does not count.
    pub(super) fn removals(&self) -> u64 {
        self.removals.count()
    }

    /// Registers a read that is about to be sent.
    pub(super) fn begin_read(&self) -> Lease {
        self.gate.begin()
    }

    /// Ends a read that was sent at `read` with what it found; what has changed since stays out.
    pub(super) fn end_read(
        &self,
        ticket: &Lease,
        read: BootInstant,
        found: impl IntoIterator<Item = (TokenId, Record)>,
    ) {
        self.gate.fill(ticket, found, |id, record| {
            // Spread over a quarter of the age by the id's random bits, so that what was read together is not
            // read again together.
            let jitter = MAX_AGE / 4 * i64::from(id.to_bytes()[15]) / 256;
            let kept = Kept { record, read_again: read.boot + MAX_AGE - jitter };
            self.records.insert_with_lifecycle(id, kept, &mut Entering(Some(id)));
        });
    }

    /// Ends a read that failed.
    pub(super) fn abandon_read(&self, ticket: &Lease) {
        self.gate.abandon(ticket);
    }

    /// Removes records that have changed, also those that are being read.
    pub(super) fn forget(&self, ids: &[TokenId]) {
        if ids.is_empty() {
            return;
        }
        self.gate.invalidate(ids);
        for id in ids {
            self.records.remove(id);
        }
        self.removals.removed();
    }

    /// Removes what has changed.
    pub(super) fn invalidate(&self, changed: Invalidation<'_>) {
        match changed {
            Invalidation::Tokens(ids) => self.forget(ids),
            Invalidation::Everything => self.clear(),
        }
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        self.gate.invalidate_all();
        self.records.clear();
        self.removals.removed();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_allocator_hands_out_is_the_next_of_its_sizes() {
        for (asked, got) in [(65, 80), (96, 96), (97, 112), (257, 320), (320, 320), (321, 384), (513, 640)] {
            assert_eq!(super::handed_out(asked), got, "{asked}");
        }
    }
}
