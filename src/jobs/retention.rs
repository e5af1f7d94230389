//! Warns of tokens that will expire, deletes those that ended long ago, and keeps the tables of the usage. Any replica may do it.
//! Started by the server.

use std::time::Duration;

use tokio::time::Instant;

use super::purge::RETRY;
use crate::store::{Store, StoreError};

/// The settings of warnings and deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How long before its expiration a token gets a warning; one for each.
    pub warnings: Vec<Duration>,
    /// How long an expired or revoked token is kept.
    pub kept: Duration,
    /// How long verifications are kept by hour.
    pub usage_hours: Duration,
    /// How long verifications are kept by day.
    pub usage_days: Duration,
    /// The longest interval between two checks.
    pub interval: Duration,
}

impl Retention {
    /// Returns the interval between two checks for warnings this long ahead: no warning is late by more
    /// than a tenth of that.
    fn interval_of(&self, ahead: Duration) -> Duration {
        self.interval.min(ahead / 10)
    }
}

/// Warns and deletes until the server stops the task.
pub async fn run(store: Store, retention: Retention) {
    let mut warnings: Vec<_> = retention.warnings.iter().map(|ahead| (*ahead, Instant::now())).collect();
    let mut purge = Instant::now();
    loop {
        for (ahead, due) in warnings.iter_mut().filter(|(_, due)| *due <= Instant::now()) {
            *due = Instant::now() + retention.interval_of(*ahead);
            report("warned of expirations", warn(&store, *ahead).await);
        }
        if purge <= Instant::now() {
            let interval = if store.may_delete() { retention.interval } else { RETRY };
            purge = Instant::now() + interval.min(retention.interval);
            report("purged tokens", delete(&store, retention.kept).await);
            report("added hours of usage to days", keep_usage(&store, &retention).await);
        }
        let next = warnings.iter().map(|(_, due)| *due).min();
        tokio::time::sleep_until(next.map_or(purge, |next| next.min(purge))).await;
    }
}

fn report(work: &'static str, outcome: Result<u64, StoreError>) {
    match outcome {
        Ok(done) => tracing::debug!(done, work),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, work, "failed; trying again later");
        }
    }
}

/// Warns of all due tokens, a batch at a time; returns how many.
async fn warn(store: &Store, ahead: Duration) -> Result<u64, StoreError> {
    let mut warned = 0;
    loop {
        match store.warn_of_expirations(ahead).await? {
            0 => return Ok(warned),
            batch => warned += batch,
        }
    }
}

/// Deletes all due tokens, a batch at a time; returns how many.
async fn delete(store: &Store, kept: Duration) -> Result<u64, StoreError> {
    let mut purged = 0;
    loop {
        match store.purge_tokens(kept).await? {
            0 => return Ok(purged),
            batch => purged += batch,
        }
    }
}

/// Makes partitions of the usage ahead, drops old ones, and adds complete hours to their days; returns how many.
async fn keep_usage(store: &Store, retention: &Retention) -> Result<u64, StoreError> {
    let mut hours = 0;
    let rolled_up = loop {
        match store.roll_up_usage().await {
            Ok(true) => hours += 1,
            Ok(false) => break Ok(hours),
            Err(error) => break Err(error),
        }
    };
    // In any case: without partitions nothing can be written. Hours that were not added to their days are kept.
    store.maintain_usage(retention.usage_hours, retention.usage_days).await?;
    rolled_up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_at_most_a_tenth_of_its_time_late() {
        let retention = Retention {
            warnings: Vec::new(),
            kept: Duration::from_hours(24),
            usage_hours: Duration::from_hours(24),
            usage_days: Duration::from_hours(24),
            interval: Duration::from_mins(5),
        };
        for (ahead, interval) in [(60, 6), (600, 60), (3_000, 300), (604_800, 300)] {
            let (ahead, interval) = (Duration::from_secs(ahead), Duration::from_secs(interval));
            assert_eq!(retention.interval_of(ahead), interval, "{ahead:?}");
        }
    }
}
