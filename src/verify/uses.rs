//! Notes which tokens were used, off the database and off the path: a cached record is marked once an
//! interval, so that a token that is used a thousand times a second costs one note. Emptied by the job that
//! flushes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use super::cache::Cached;
use crate::secret::TokenId;

const SHARDS: usize = 16;

/// The most tokens that are noted between two flushes; more than that are noted at their next use.
const MAX_NOTED: usize = 1 << 20;

/// The uses since the last flush.
#[derive(Debug)]
pub struct Uses {
    interval: AtomicU32,
    noted: [Mutex<HashMap<TokenId, OffsetDateTime>>; SHARDS],
}

impl Uses {
    pub(super) fn new() -> Self {
        Self { interval: AtomicU32::new(1), noted: Default::default() }
    }

    /// Notes a use, unless this record was noted in this interval already.
    pub(super) fn note(&self, cached: &Cached, now: OffsetDateTime) {
        let interval = self.interval.load(Ordering::Relaxed);
        // Read before write: a shared cache line that is only read stays with every core.
        if cached.marked.load(Ordering::Relaxed) == interval {
            return;
        }
        let shard = usize::from(cached.id.to_bytes()[15]) % SHARDS;
        let mut noted = self.noted[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MAX_NOTED / SHARDS || noted.contains_key(&cached.id) {
            noted.insert(cached.id, now);
            cached.marked.store(interval, Ordering::Relaxed);
        }
    }

    /// Returns how many uses are noted.
    pub(super) fn noted(&self) -> u64 {
        self.noted.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64).sum()
    }

    /// Takes what was noted and begins the next interval.
    #[must_use]
    pub fn take(&self) -> Vec<(TokenId, OffsetDateTime)> {
        self.interval.fetch_add(1, Ordering::Relaxed);
        let taken = self
            .noted
            .iter()
            .map(|shard| std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner)));
        taken.flatten().collect()
    }
}
