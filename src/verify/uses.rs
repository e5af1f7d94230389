//! Notes which tokens were used, in memory and outside the request path: a record is marked once per
//! interval, so that a token used a thousand times per second costs one note. Emptied by the job that
//! flushes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use crate::domain::Record;
use crate::secret::TokenId;

const SHARDS: usize = 16;

/// The maximum number of tokens noted between two flushes; further ones are noted at their next use.
const MAX_NOTED: usize = 1 << 20;

/// The uses since the last flush.
#[derive(Debug)]
pub struct Uses {
    interval: AtomicU32,
    /// Times in microseconds since 1970: half the size of an `OffsetDateTime`.
    noted: [Mutex<HashMap<TokenId, i64>>; SHARDS],
}

impl Uses {
    pub(super) fn new() -> Self {
        Self { interval: AtomicU32::new(1), noted: Default::default() }
    }

    /// Notes a use, unless this record was already noted in this interval.
    pub(super) fn note(&self, id: TokenId, record: &Record, now: OffsetDateTime) {
        let interval = self.interval.load(Ordering::Relaxed);
        // Read before write: a shared cache line that is only read stays in every core's cache.
        if record.mark() == interval {
            return;
        }
        let shard = usize::from(id.to_bytes()[15]) % SHARDS;
        let mut noted = self.noted[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MAX_NOTED / SHARDS || noted.contains_key(&id) {
            let micros = now.unix_timestamp_nanos() / 1_000;
            noted.insert(id, i64::try_from(micros).unwrap_or(i64::MAX));
            record.set_mark(interval);
        }
    }

    /// Returns how many uses are noted.
    pub(super) fn noted(&self) -> u64 {
        self.noted.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64).sum()
    }

    /// Takes the notes and begins the next interval.
    #[must_use]
    pub fn take(&self) -> Vec<(TokenId, OffsetDateTime)> {
        self.interval.fetch_add(1, Ordering::Relaxed);
        let taken = self
            .noted
            .iter()
            .map(|shard| std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner)));
        let time = |micros| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
        taken.flatten().filter_map(|(id, micros)| Some((id, time(micros).ok()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokend_core::fixtures::token;

    use super::*;
    use crate::secret::{KeyId, Mac};

    #[test]
    fn the_number_of_noted_uses_is_bounded() {
        let (uses, token) = (Uses::new(), token(&[]));
        let record = Record::new(&token, Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] });
        let note = |number: u32, shard: u8| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            id[15] = shard;
            record.set_mark(0);
            uses.note(TokenId::from_bytes(id), &record, token.create_time);
        };
        let each = u32::try_from(MAX_NOTED / SHARDS).unwrap();
        (0..=each).for_each(|number| note(number, 0));
        assert_eq!(uses.noted(), u64::from(each));
        note(0, 1);
        assert_eq!(uses.take().len(), MAX_NOTED / SHARDS + 1);
        note(each, 0);
        assert_eq!(uses.noted(), 1);
    }
}
