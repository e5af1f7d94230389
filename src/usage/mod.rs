//! Counts verifications, in memory and outside the request path. Called by the engine for each verdict on a token
//! whose secret matched; emptied by the job that flushes. Knows no gRPC and no SQL.

mod refusals;
mod uses;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use time::OffsetDateTime;

use refusals::Refusals;
use uses::Uses;

use crate::domain::usage::UseCount;
use crate::domain::{Judgement, Record, Verdict};
use crate::secret::TokenId;

/// What was counted since the last flush.
#[derive(Debug, Default)]
pub struct Usage {
    uses: Uses,
    refusals: Refusals,
    lost: AtomicU64,
}

impl Usage {
    /// Counts a verdict on a token whose secret matched, presented from `client_ip`.
    pub fn count(
        &self,
        id: TokenId,
        record: &Record,
        judgement: &Judgement,
        client_ip: Option<IpAddr>,
        now: OffsetDateTime,
    ) {
        let lost = if judgement.verdict == Verdict::Valid {
            self.uses.count(id, record, now)
        } else {
            self.refusals.count(id, record, judgement, client_ip, now)
        };
        self.lose(lost);
    }

    /// Notes that a token was used, but not verified: as the credential of a caller.
    pub fn note(&self, id: TokenId, record: &Record, now: OffsetDateTime) {
        let lost = self.uses.mark(id, record, now);
        self.lose(lost);
    }

    fn lose(&self, verifications: u64) {
        if verifications > 0 {
            self.lost.fetch_add(verifications, Ordering::Relaxed);
        }
    }

    /// Returns how many tokens are noted.
    pub fn noted(&self) -> u64 {
        self.uses.noted()
    }

    /// Returns how many verifications were not counted since the last call, because too many tokens were noted.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Takes what was counted.
    #[must_use]
    pub fn take(&self) -> Vec<UseCount> {
        let mut taken = self.uses.take();
        taken.extend(self.refusals.take());
        taken
    }
}

#[cfg(test)]
mod tests;
