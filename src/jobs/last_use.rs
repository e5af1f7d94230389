//! Flushes which tokens were used to the database, one statement a batch, and once more when the server
//! stops. What cannot be written is tried again with the next flush.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::secret::TokenId;
use crate::store::Store;
use crate::verify::Engine;

/// How many uses one statement records.
const BATCH: usize = 10_000;

/// The most uses that are kept for another try.
const MAX_KEPT: usize = 1 << 20;

/// Flushes every `interval` until the server stops it.
pub async fn run(engine: Arc<Engine>, store: Store, interval: Duration) {
    let mut kept = Vec::new();
    loop {
        tokio::time::sleep(interval).await;
        kept.extend(engine.uses().take());
        flush(&store, &mut kept).await;
        kept.truncate(MAX_KEPT);
    }
}

/// Flushes what there is, at the end.
pub async fn flush_last(engine: &Engine, store: &Store) {
    flush(store, &mut engine.uses().take()).await;
}

async fn flush(store: &Store, uses: &mut Vec<(TokenId, OffsetDateTime)>) {
    while !uses.is_empty() {
        let rest = uses.len().saturating_sub(BATCH);
        if let Err(error) = store.record_uses(&uses[rest..]).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, uses = uses.len(), "uses of tokens were not recorded; trying again later");
            return;
        }
        uses.truncate(rest);
    }
}
