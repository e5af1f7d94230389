//! The memory of records that left the cache while their counted uses were not taken: a note keeps each of them.
//! When it is too much, the counts are taken early. Called by the cache.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::domain::Record;

/// Counts the bytes of such records.
#[derive(Debug)]
pub(super) struct KeptRecords {
    bytes: AtomicU64,
    limit: u64,
    due: Notify,
}

impl KeptRecords {
    /// Allows `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { bytes: AtomicU64::new(0), limit, due: Notify::new() }
    }

    /// Counts a record that has left the cache.
    pub(super) fn left(&self, record: &Record) {
        if !record.has_uses() {
            return;
        }
        let size = record.bytes() as u64;
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if before <= self.limit && before.saturating_add(size) > self.limit {
            self.due.notify_one();
        }
    }

    /// Notes that all records have left the cache.
    pub(super) fn all_left(&self) {
        self.due.notify_one();
    }

    /// Waits until it is too much.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Begins to count anew.
    pub(super) fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }
}
