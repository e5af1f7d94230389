//! Records of tokens, bounded in bytes, least useful out first. Filled by the loader, emptied by the feed,
//! read by every Verify. Holds MACs and metadata, never a secret; and never that a token does not exist.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use super::gate::{Gate, Ticket};
use crate::ambient::Moment;
use crate::domain::Record;
use crate::metrics::Metrics;
use crate::secret::TokenId;

/// What one record costs beside its own bytes: the shared pointer's counts, the allocator's rounding, and the
/// cache's slot, key and index. Held against the allocator's own count by a test.
const OVERHEAD: u64 = 96;

/// What a record takes on average, to size the cache's tables.
const TYPICAL: u64 = 384;

/// How long a record is used before it is read again although no change of it was seen, in nanoseconds.
const MAX_AGE: i64 = 600 * 1_000_000_000;

/// A record in the cache.
#[derive(Debug)]
pub struct Cached {
    /// The token it is of.
    pub id: TokenId,
    /// The record.
    pub record: Record,
    /// When it is to be read again, by the boot clock in nanoseconds.
    read_again: i64,
    /// In which interval of recording uses it was last marked as used.
    pub(super) marked: AtomicU32,
}

impl Cached {
    /// Takes a record that was read at `now`.
    pub(super) fn new(id: TokenId, record: Record, now: Moment) -> Self {
        // Spread over a quarter of the age by the id's random bits, so that what was read together is not
        // read again together.
        let bytes = id.to_bytes();
        let jitter = MAX_AGE / 4 * i64::from(bytes[15]) / 256;
        Self { id, record, read_again: now.boot + MAX_AGE - jitter, marked: AtomicU32::new(0) }
    }
}

#[cfg(test)]
impl Cached {
    /// Takes a record for a test that asks no cache.
    pub(crate) fn for_test(id: TokenId, record: Record) -> Self {
        Self::new(id, record, Moment { boot: 0, wall: 0 })
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<TokenId, Arc<Cached>> for Weight {
    fn weight(&self, _: &TokenId, cached: &Arc<Cached>) -> u64 {
        (size_of::<Cached>() + cached.record.packed.wire().len()) as u64 + OVERHEAD
    }
}

type Records = QuickCache<TokenId, Arc<Cached>, Weight, DefaultHashBuilder, Evictions>;

/// Counts what makes room for others.
#[derive(Debug, Clone)]
struct Evictions(Arc<Metrics>);

impl Lifecycle<TokenId, Arc<Cached>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: TokenId, _: Arc<Cached>) {
        self.0.engine.evicted();
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    records: Records,
    gate: Gate<TokenId>,
}

impl Cache {
    /// Makes a cache of at most `bytes` bytes.
    #[must_use]
    pub(super) fn new(bytes: u64, metrics: Arc<Metrics>) -> Self {
        let items = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX);
        let hasher = DefaultHashBuilder::default();
        Self {
            records: QuickCache::with(items, bytes, Weight, hasher, Evictions(metrics)),
            gate: Gate::new(),
        }
    }

    /// Returns how many records there are, and how many bytes they take.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.records.len() as u64, self.records.weight())
    }

    /// Looks a record up; one that is to be read again is not found.
    pub(super) fn get(&self, id: TokenId, now: Moment) -> Option<Arc<Cached>> {
        self.records.get(&id).filter(|cached| now.boot < cached.read_again)
    }

    /// Looks a record up, also one that is to be read again: for when nothing can be read.
    pub(super) fn get_old(&self, id: TokenId) -> Option<Arc<Cached>> {
        self.records.get(&id)
    }

    /// Registers a read that is about to be sent.
    pub(super) fn begin_read(&self) -> Ticket {
        self.gate.begin()
    }

    /// Ends a read with what it found; what has changed since it was sent stays out.
    pub(super) fn end_read(&self, ticket: &Ticket, found: impl IntoIterator<Item = Arc<Cached>>) {
        let found = found.into_iter().map(|cached| (cached.id, cached));
        self.gate.fill(ticket, found, |id, cached| self.records.insert(id, cached));
    }

    /// Ends a read that failed.
    pub(super) fn abandon_read(&self, ticket: &Ticket) {
        self.gate.abandon(ticket);
    }

    /// Removes records that have changed, also those that are being read.
    pub(super) fn forget(&self, ids: &[TokenId]) {
        if ids.is_empty() {
            return;
        }
        self.gate.spoil(ids);
        for id in ids {
            self.records.remove(id);
        }
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        self.gate.spoil_all();
        self.records.clear();
    }
}
