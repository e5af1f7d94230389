//! Flushes which tokens were used to the database, one statement a batch, and once more when the server
//! stops. What cannot be written is tried again with the next flush.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::metrics::Metrics;
use crate::secret::TokenId;
use crate::store::Store;
use crate::verify::Engine;

/// How many uses one statement records.
const BATCH: usize = 10_000;

/// The most uses that are kept for another try.
const MAX_KEPT: usize = 1 << 20;

/// Flushes every `interval` until the server stops it.
pub async fn run(engine: Arc<Engine>, store: Store, metrics: Arc<Metrics>, interval: Duration) {
    let mut kept = Vec::new();
    loop {
        tokio::time::sleep(interval).await;
        kept.extend(engine.uses().take());
        flush(&store, &metrics, &mut kept).await;
        kept.truncate(MAX_KEPT);
    }
}

/// Flushes what there is, at the end.
pub async fn flush_last(engine: &Engine, store: &Store, metrics: &Metrics) {
    flush(store, metrics, &mut engine.uses().take()).await;
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
