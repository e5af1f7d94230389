//! Seals over the audit log, by the keyring: what is covered, in which bytes. Pure; called by the job that seals
//! and by `tokend audit verify`, so that both cover the same.

use sha2::{Digest as _, Sha256};

/// What a seal covers beside its events.
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
    /// The seal before it; zeros for the first.
    pub previous: [u8; 32],
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

    /// Returns the bytes that the seal is an HMAC of.
    #[must_use]
    pub fn covered(self, header: &SealHeader) -> Vec<u8> {
        let mut bytes = b"tokend/seal/1".to_vec();
        for number in [header.sequence, header.first_id, header.last_id, header.events] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&header.previous);
        bytes.extend_from_slice(&self.hash.finalize());
        bytes
    }
}
