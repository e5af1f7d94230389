//! Seals over the audit log, by the keyring: what is covered, in which bytes. Pure; called by the job that seals
//! and by `tokend audit verify`, so that both cover the same.

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// What a seal covers: all of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealHeader {
    /// Its number, from 1.
    pub sequence: i64,
    /// The first event number of its range, inclusive.
    pub first_id: i64,
    /// The last one, inclusive.
    pub last_id: i64,
    /// How many events the range holds.
    pub events: i64,
    /// The SHA-256 of these events, as [`SealedEvents::hash`] makes it.
    pub events_hash: [u8; 32],
    /// The seal before it; zeros for the first.
    pub previous: [u8; 32],
    /// When it was made, to the microsecond.
    pub seal_time: OffsetDateTime,
}

impl SealHeader {
    /// Returns the bytes that the seal is an HMAC of.
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

    /// Returns the bytes that the mark of a purge is an HMAC of: this seal's events were deleted at that time, to the
    /// microsecond.
    #[must_use]
    pub fn purge_covered(&self, seal: &[u8; 32], purge_time: OffsetDateTime) -> Vec<u8> {
        let mut bytes = b"tokend/purge/1".to_vec();
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(seal);
        bytes.extend_from_slice(&purge_time.unix_timestamp_nanos().to_be_bytes());
        bytes
    }
}

/// Gathers the events of a range, in the order of their numbers.
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
            // Each with whether it is there and how long it is, so that no two rows have the same bytes.
            self.hash.update([u8::from(column.is_some())]);
            let column = column.unwrap_or_default();
            self.hash.update((column.len() as u64).to_be_bytes());
            self.hash.update(column);
        }
    }

    /// Returns how many events there are.
    #[must_use]
    pub fn events(&self) -> i64 {
        self.events
    }

    /// Returns the SHA-256 of all that was added.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}
