//! A cache of token records, bounded in bytes; evicts the least useful first. Filled by the loader,
//! invalidated by the feed, read by every Verify. Holds MACs and metadata, never a secret, and never
//! the fact that a token does not exist.

use std::sync::Arc;

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use tokend_core::fill_guard::{FillGuard, Lease};

use super::cache_generation::Removals;
use super::kept_records::KeptRecords;
use crate::changefeed::feed::Invalidation;
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::metrics::Metrics;
use crate::secret::TokenId;

/// The minimum weight of a record; it bounds how many there can be: the tables are allocated for that
/// many at once and never grow. Less than a record with a few scopes and labels takes.
const MIN_WEIGHT: u64 = 288;

/// The table memory of each record: a slot (id, record, times, links), and an entry in the index, whose
/// size is a power of two. Measured by `tests/memory`.
const SLOT_BYTES: u64 = 56;
const INDEX_BYTES: u64 = 6;

/// One evicted record is remembered, by its hash, for every so many possible records: when it returns,
/// it has been used often enough to stay. Each takes a slot, too.
const REMEMBERED: u64 = 8;

/// Spare slots in each shard of the table: it frees a slot slightly later than it takes one.
const SPARE_SLOTS: u64 = 64;

/// How long a record is used before it is read again although no change was seen, in nanoseconds.
const MAX_AGE: i64 = 600 * 1_000_000_000;

/// A record, and when it must be read again, by the boot clock in nanoseconds.
#[derive(Debug, Clone)]
struct CacheEntry {
    record: Record,
    read_again: i64,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<TokenId, CacheEntry> for Weight {
    fn weight(&self, _: &TokenId, entry: &CacheEntry) -> u64 {
        handed_out(entry.record.bytes() as u64).max(MIN_WEIGHT)
    }
}

/// Returns how many bytes the allocator gives for a request: mimalloc has four sizes for each doubling.
fn handed_out(bytes: u64) -> u64 {
    let step = (bytes.saturating_sub(1).max(64).ilog2() - 2).min(12);
    bytes.next_multiple_of(1 << step)
}

type Records = QuickCache<TokenId, CacheEntry, Weight, DefaultHashBuilder, Evictions>;

/// Counts evictions, and the memory of evicted records that is not free yet.
#[derive(Debug, Clone)]
struct Evictions(Arc<Metrics>, Arc<KeptRecords>);

impl Lifecycle<TokenId, CacheEntry> for Evictions {
    type RequestState = PendingInsert;

    fn on_evict(&self, pending: &mut PendingInsert, id: TokenId, entry: CacheEntry) {
        self.1.left(&entry.record);
        // Replacing a record by a newer version of itself ends here, too.
        if pending.0 != Some(id) {
            self.0.engine.evicted();
        }
    }
}

/// The record that is being inserted.
#[derive(Debug, Default)]
struct PendingInsert(Option<TokenId>);

/// The record cache.
#[derive(Debug)]
pub(super) struct Cache {
    records: Records,
    /// What the tables take, in bytes.
    tables: u64,
    fill_guard: FillGuard<TokenId>,
    removals: Removals,
    kept: Arc<KeptRecords>,
}

impl Cache {
    /// Creates a cache of at most `bytes` bytes, including its tables.
    #[must_use]
    pub(super) fn new(bytes: u64, metrics: Arc<Metrics>) -> Self {
        let each = MIN_WEIGHT + SLOT_BYTES + SLOT_BYTES / REMEMBERED + INDEX_BYTES;
        let most = bytes / each;
        let remembered = most / REMEMBERED;
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let hasher = DefaultHashBuilder::default();
        // It remembers half as many as the number given here.
        let kept = Arc::new(KeptRecords::new(bytes / 8));
        let evictions = Evictions(metrics, Arc::clone(&kept));
        let records = QuickCache::with(count(2 * remembered), bytes, Weight, hasher, evictions);
        let spare = SPARE_SLOTS * records.num_shards() as u64;
        records.reserve(count(most + spare));
        let tables = (most + spare + remembered) * SLOT_BYTES + records.memory_used().map as u64;
        records.set_capacity(bytes.saturating_sub(tables));
        Self { records, tables, fill_guard: FillGuard::new(), removals: Removals::new(), kept }
    }

    /// Returns the number of records, and the bytes that they and the tables take.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.records.len() as u64, self.tables + self.records.weight())
    }

    /// Returns a record; one that must be read again is not found.
    pub(super) fn get(&self, id: TokenId, now: BootInstant) -> Option<Record> {
        self.records.get(&id).filter(|entry| now.boot < entry.read_again).map(|entry| entry.record)
    }

    /// Returns a record, even one that must be read again: for when Postgres cannot be read.
    pub(super) fn get_stale(&self, id: TokenId) -> Option<Record> {
        self.records.get(&id).map(|entry| entry.record)
    }

    /// Returns what counts the records that left the cache and are still in memory.
    pub(super) fn kept(&self) -> &KeptRecords {
        &self.kept
    }

    /// Returns the number of removals; evictions do not count.
    pub(super) fn removals(&self) -> u64 {
        self.removals.count()
    }

    /// Registers a read that is about to be sent.
    pub(super) fn begin_read(&self) -> Lease {
        self.fill_guard.begin()
    }

    /// Ends a read that was sent at `read` and inserts what it found, except what has changed since.
    pub(super) fn end_read(
        &self,
        lease: &Lease,
        read: BootInstant,
        found: impl IntoIterator<Item = (TokenId, Record)>,
    ) {
        self.fill_guard.fill(lease, found, |id, record| {
            // The id's random bits spread this over a quarter of the age, so that records read together
            // are not read again together.
            let jitter = MAX_AGE / 4 * i64::from(id.to_bytes()[15]) / 256;
            let entry = CacheEntry { record, read_again: read.boot + MAX_AGE - jitter };
            self.records.insert_with_lifecycle(id, entry, &mut PendingInsert(Some(id)));
        });
    }

    /// Ends a read that failed.
    pub(super) fn abandon_read(&self, lease: &Lease) {
        self.fill_guard.abandon(lease);
    }

    /// Returns whether no read is in progress.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.fill_guard.is_idle()
    }

    /// Removes records that have changed, and keeps out reads of them that are in progress.
    pub(super) fn forget(&self, ids: &[TokenId]) {
        if ids.is_empty() {
            return;
        }
        self.fill_guard.invalidate(ids);
        for id in ids {
            if let Some((_, entry)) = self.records.remove(id) {
                self.kept.left(&entry.record);
            }
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
        self.fill_guard.invalidate_all();
        self.records.clear();
        self.kept.all_left();
        self.removals.removed();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_allocation_has_the_next_size_class() {
        for (asked, got) in [(65, 80), (96, 96), (97, 112), (257, 320), (320, 320), (321, 384), (513, 640)] {
            assert_eq!(super::handed_out(asked), got, "{asked}");
        }
    }
}
