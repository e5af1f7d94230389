//! Flushes the counts and last uses of tokens to the database, one statement per batch, and once more after the last
//! call. What cannot be written is retried with the next flush. Started by the server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use crate::clock;
use crate::domain::usage::UseCount;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::verify::Engine;

/// How many counts one statement records.
const BATCH: usize = 10_000;

/// The maximum number of batches kept for a retry.
const MAX_PENDING: usize = 128;

/// The counts that are not written yet. A batch keeps its number until it is written, so that the database can refuse
/// what it has already added.
struct Pending {
    writer: Uuid,
    next: i64,
    batches: VecDeque<(i64, Vec<UseCount>)>,
}

impl Pending {
    fn add(&mut self, counts: &[UseCount]) {
        for batch in counts.chunks(BATCH) {
            self.batches.push_back((self.next, batch.to_vec()));
            self.next = self.next.saturating_add(1);
        }
    }

    /// Drops the oldest batches that are too many; returns how many verifications they counted.
    fn bound(&mut self) -> u64 {
        let surplus = self.batches.len().saturating_sub(MAX_PENDING);
        let dropped = self.batches.drain(..surplus).flat_map(|(_, counts)| counts);
        dropped.fold(0, |sum, count| sum.saturating_add(count.verifications))
    }
}

/// Flushes every `interval`, and a last time after the sender of `end` is dropped.
pub async fn run(
    engine: Arc<Engine>,
    store: Store,
    metrics: Arc<Metrics>,
    interval: Duration,
    mut end: watch::Receiver<()>,
) {
    // A writer of its own for each run: after a panic the numbers begin anew.
    let mut pending = Pending { writer: clock::random_uuid(), next: 1, batches: VecDeque::new() };
    loop {
        let ended = tokio::select! {
            _ = end.changed() => true,
            () = tokio::time::sleep(interval) => false,
            () = engine.usage_is_due() => false,
        };
        pending.add(&engine.take_usage());
        // Never cancelled: the counts of the current statement would be lost.
        flush(&store, &metrics, &mut pending).await;
        let lost = pending.bound().saturating_add(engine.usage().take_lost());
        if lost > 0 {
            metrics.work.usage_lost(lost);
            tracing::warn!(
                verifications = lost,
                "verifications are missing in the usage: too many were not written"
            );
        }
        if ended {
            return;
        }
    }
}

async fn flush(store: &Store, metrics: &Metrics, pending: &mut Pending) {
    while let Some((sequence, counts)) = pending.batches.front() {
        let began = Instant::now();
        let recorded = match store.record_refusals(counts).await {
            Ok(()) => store.record_usage(pending.writer, *sequence, counts).await,
            failed => failed,
        };
        let written = counts.iter().filter(|count| count.is_use()).count();
        metrics.work.flushed(began.elapsed(), recorded.is_ok().then_some(written));
        if let Err(error) = recorded {
            let error = &error as &dyn std::error::Error;
            let batches = pending.batches.len();
            tracing::warn!(error, batches, "uses of tokens were not recorded; trying again later");
            return;
        }
        pending.batches.pop_front();
    }
}
