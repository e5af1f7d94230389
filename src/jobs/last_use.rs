//! Flushes the uses of tokens to the database, one statement per batch, and once more after the last
//! call. What cannot be written is retried with the next flush. Started by the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::secret::TokenId;
use crate::store::Store;
use crate::verify::Engine;

/// How many uses one statement records.
const BATCH: usize = 10_000;

/// The maximum number of uses kept for a retry.
const MAX_PENDING: usize = 1 << 20;

/// Flushes every `interval`, and a last time after the sender of `end` is dropped.
pub async fn run(
    engine: Arc<Engine>,
    store: Store,
    metrics: Arc<Metrics>,
    interval: Duration,
    mut end: watch::Receiver<()>,
) {
    let mut pending = Vec::new();
    loop {
        let ended = tokio::time::timeout(interval, end.changed()).await.is_ok();
        pending.extend(engine.uses().take());
        // Never cancelled: the uses of the current statement would be lost.
        flush(&store, &metrics, &mut pending).await;
        pending.truncate(MAX_PENDING);
        if ended {
            return;
        }
    }
}

async fn flush(store: &Store, metrics: &Metrics, uses: &mut Vec<(TokenId, OffsetDateTime)>) {
    while !uses.is_empty() {
        let rest = uses.len().saturating_sub(BATCH);
        let began = Instant::now();
        let recorded = store.record_uses(&uses[rest..]).await;
        metrics.work.flushed(began.elapsed(), recorded.is_ok().then(|| uses.len() - rest));
        if let Err(error) = recorded {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, uses = uses.len(), "uses of tokens were not recorded; trying again later");
            return;
        }
        uses.truncate(rest);
    }
}
