//! Counts refusals of tokens whose secret matched. They are rarer than uses, and have a map of their own, so that
//! records need no further counters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use super::uses::organization;
use crate::domain::token::{LastRefusal, MAX_MISSING_SCOPES};
use crate::domain::usage::{UseCount, number};
use crate::domain::{Judgement, Record, Verdict};
use crate::secret::TokenId;

const SHARDS: usize = 16;

/// The maximum number of tokens and verdicts counted between two flushes: seven eighths of a power of two, since a table
/// that is fuller doubles.
pub(super) const MAX_COUNTED: usize = 7 << 15;

/// The maximum memory of the scopes that were missing, over all of them. Beyond it a refusal is kept without them.
pub(super) const MAX_SCOPE_BYTES: usize = 8 << 20;

/// The refusals since the last flush.
#[derive(Debug, Default)]
pub(super) struct Refusals([Mutex<Shard>; SHARDS]);

#[derive(Debug, Default)]
struct Shard {
    counts: HashMap<(TokenId, Verdict), UseCount>,
    scope_bytes: usize,
}

impl Refusals {
    /// Counts a refusal. Returns how many were lost because too many tokens are counted.
    pub(super) fn count(
        &self,
        id: TokenId,
        record: &Record,
        judgement: &Judgement,
        client_ip: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> u64 {
        let verdict = judgement.verdict;
        let missing = judgement.missing_scopes.iter().take(MAX_MISSING_SCOPES);
        let refusal = LastRefusal {
            time: now,
            verdict: u8::try_from(number(verdict)).unwrap_or(0),
            missing_scopes: missing.map(|scope| scope.as_str().to_owned()).collect(),
            client_ip,
        };
        let shard = &self.0[usize::from(id.to_bytes()[15]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { counts, scope_bytes } = &mut *shard;
        if let Some(count) = counts.get_mut(&(id, verdict)) {
            count.verifications = count.verifications.saturating_add(1);
            *scope_bytes = scope_bytes.saturating_sub(count.refusal.as_ref().map_or(0, bytes));
            count.refusal = Some(bounded(refusal, scope_bytes));
            return 0;
        }
        match organization(record) {
            Some(organization_id) if counts.len() < MAX_COUNTED / SHARDS => {
                let refusal = Some(bounded(refusal, scope_bytes));
                let count = UseCount { id, organization_id, verdict, time: now, verifications: 1, refusal };
                counts.insert((id, verdict), count);
                0
            }
            _ => 1,
        }
    }

    pub(super) fn take(&self) -> Vec<UseCount> {
        let taken = self.0.iter().map(|shard| {
            std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner)).counts.into_values()
        });
        taken.flatten().collect()
    }
}

/// Returns how much memory the missing scopes take.
fn bytes(refusal: &LastRefusal) -> usize {
    let of = |scope: &String| scope.capacity().saturating_add(size_of::<String>());
    refusal.missing_scopes.iter().map(of).sum()
}

/// Returns a refusal with its scopes if there is memory for them, and counts that.
fn bounded(mut refusal: LastRefusal, scope_bytes: &mut usize) -> LastRefusal {
    let more = scope_bytes.saturating_add(bytes(&refusal));
    if more > MAX_SCOPE_BYTES / SHARDS {
        refusal.missing_scopes = Vec::new();
    } else {
        *scope_bytes = more;
    }
    refusal
}
