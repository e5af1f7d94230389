//! Remembers that a record is in the cache, so that its user need not look it up in each call, which costs
//! more than judging it. A found record is still there while nothing has been removed; so the cache counts
//! removals. Pure state, so that a model checker can test every interleaving (tests/model).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::sync::{AtomicI64, AtomicU64};

/// How long a found record is not looked up again although nothing was removed, in nanoseconds: what
/// the cache must read again because of its age is not removed.
const LOOK_AGAIN: i64 = 1_000_000_000;

/// The number of removals from a cache.
#[derive(Debug)]
pub(super) struct Removals(AtomicU64);

impl Removals {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns the count. Must be read after the freshness, and before a lookup that is to be
    /// remembered.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Counts a removal. Must be called after it: a lookup that begins later finds nothing.
    pub(super) fn removed(&self) {
        self.0.fetch_add(1, Release);
    }
}

/// When a record was last found. Users that share it may write it concurrently: each of the two fields
/// is true by itself.
#[derive(Debug)]
pub(super) struct CacheGeneration {
    removals: AtomicU64,
    /// By the boot clock.
    look_again: AtomicI64,
}

impl CacheGeneration {
    /// Creates one for a record that has not been found yet.
    pub(super) fn never() -> Self {
        Self { removals: AtomicU64::new(u64::MAX), look_again: AtomicI64::new(i64::MIN) }
    }

    /// Returns whether the record is still in the cache, given the current number of removals.
    pub(super) fn holds(&self, removals: u64, now: i64) -> bool {
        self.removals.load(Relaxed) == removals && now < self.look_again.load(Relaxed)
    }

    /// Remembers that the record was found after that number of removals.
    pub(super) fn found(&self, removals: u64, now: i64) {
        self.look_again.store(now.saturating_add(LOOK_AGAIN), Relaxed);
        self.removals.store(removals, Relaxed);
    }
}

impl Clone for CacheGeneration {
    fn clone(&self) -> Self {
        Self {
            removals: AtomicU64::new(self.removals.load(Relaxed)),
            look_again: AtomicI64::new(self.look_again.load(Relaxed)),
        }
    }
}
