//! Counts uses of tokens: in the record itself, so that a use costs one addition. A record is noted by its first use
//! after each flush. The note keeps the record, so an evicted record's count is not lost, and a record that was read
//! again has a note of its own.

use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use crate::domain::usage::UseCount;
use crate::domain::{OrganizationId, Record, Verdict};
use crate::secret::TokenId;

const SHARDS: usize = 16;

/// The maximum number of records noted between two flushes.
pub(super) const MAX_NOTED: usize = 1 << 20;

#[derive(Debug)]
struct Note {
    id: TokenId,
    record: Record,
    /// In microseconds since 1970: half the size of an `OffsetDateTime`.
    micros: i64,
}

/// The records that were used since the last flush.
#[derive(Debug, Default)]
pub(super) struct Uses([Mutex<Vec<Note>>; SHARDS]);

impl Uses {
    /// Counts a use. Returns how many were lost because too many records are noted.
    pub(super) fn count(&self, id: TokenId, record: &Record, now: OffsetDateTime) -> u64 {
        // Only the use that finds zero notes the record, and only a note makes it zero again: so there is one note
        // for each count above zero.
        if record.count_use() { self.note(id, record, now) } else { 0 }
    }

    /// Notes a use that is not counted.
    pub(super) fn mark(&self, id: TokenId, record: &Record, now: OffsetDateTime) -> u64 {
        if record.note_use() { self.note(id, record, now) } else { 0 }
    }

    fn note(&self, id: TokenId, record: &Record, now: OffsetDateTime) -> u64 {
        let mut notes = self.shard(id).lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTED / SHARDS {
            let micros = i64::try_from(now.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
            notes.push(Note { id, record: record.clone(), micros });
            return 0;
        }
        drop(notes);
        u64::from(record.take_uses())
    }

    pub(super) fn noted(&self) -> u64 {
        self.0.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64).sum()
    }

    pub(super) fn take(&self) -> Vec<UseCount> {
        let mut taken = Vec::new();
        for shard in &self.0 {
            let notes = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            taken.extend(notes.into_iter().filter_map(Note::take));
        }
        taken
    }

    fn shard(&self, id: TokenId) -> &Mutex<Vec<Note>> {
        &self.0[usize::from(id.to_bytes()[15]) % SHARDS]
    }
}

impl Note {
    fn take(self) -> Option<UseCount> {
        Some(UseCount {
            id: self.id,
            organization_id: organization(&self.record)?,
            verdict: Verdict::Valid,
            time: time(self.micros)?,
            verifications: u64::from(self.record.take_uses()),
            refusal: None,
        })
    }
}

/// Returns a record's organization.
pub(super) fn organization(record: &Record) -> Option<OrganizationId> {
    OrganizationId::parse(std::str::from_utf8(record.packed().organization_id()).ok()?).ok()
}

fn time(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()
}
