//! The bytes that seals of the audit log cover; the keyring signs them. Pure; called by the job that
//! seals and by `tokend audit verify`, so that both cover the same.

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// The content of a seal: all of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealHeader {
    /// Its number, from 1.
    pub sequence: i64,
    /// The first event number of its range, inclusive.
    pub first_id: i64,
    /// The last event number of its range, inclusive.
    pub last_id: i64,
    /// The number of events in the range.
    pub events: i64,
    /// The SHA-256 of these events, from [`SealedEvents::hash`].
    pub events_hash: [u8; 32],
    /// The previous seal; zeros for the first.
    pub previous: [u8; 32],
    /// When it was made, in whole microseconds.
    pub seal_time: OffsetDateTime,
}

impl SealHeader {
    /// Returns the bytes whose HMAC is the seal.
    #[must_use]
    pub fn covered(&self) -> Vec<u8> {
        let mut bytes = b"tokend/seal/1".to_vec();
        for number in [self.sequence, self.first_id, self.last_id, self.events] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.events_hash);
        bytes.extend_from_slice(&self.previous);
        bytes.extend_from_slice(&self.seal_time.unix_timestamp_nanos().to_be_bytes());
        bytes
    }

    /// Returns the bytes whose HMAC is the purge mark: this seal's events were deleted at that time, in
    /// whole microseconds.
    #[must_use]
    pub fn purge_covered(&self, seal: &[u8; 32], purge_time: OffsetDateTime) -> Vec<u8> {
        let mut bytes = b"tokend/purge/1".to_vec();
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(seal);
        bytes.extend_from_slice(&purge_time.unix_timestamp_nanos().to_be_bytes());
        bytes
    }
}

/// Hashes the events of a range, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct SealedEvents {
    hash: Sha256,
    events: i64,
}

impl SealedEvents {
    /// Adds an event's number and its columns, in their order.
    pub fn add(&mut self, id: i64, columns: &[Option<&[u8]>]) {
        self.events += 1;
        self.hash.update(id.to_be_bytes());
        for column in columns {
            // Each with its presence and length, so that no two different rows have the same bytes.
            self.hash.update([u8::from(column.is_some())]);
            let column = column.unwrap_or_default();
            self.hash.update((column.len() as u64).to_be_bytes());
            self.hash.update(column);
        }
    }

    /// Returns the number of events.
    #[must_use]
    pub fn events(&self) -> i64 {
        self.events
    }

    /// Returns the SHA-256 of everything that was added.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}
