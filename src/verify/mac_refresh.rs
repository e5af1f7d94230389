//! Rewrites MACs that were made with an older key of the ring, using the primary key, in the background
//! and in batches. The engine suggests them as it meets them; a suggestion dropped from a full queue is
//! made again at the token's next Verify. Knows no secrets, only MACs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use crate::store::{MacChange, Store};

/// How many suggestions may wait.
const MAX_QUEUED: usize = 4096;

/// How many MACs one statement writes at most.
const MAX_BATCH: usize = 256;

/// How long a batch collects suggestions.
const BATCH_DELAY: Duration = Duration::from_millis(200);

/// The sending end of the queue of suggestions.
#[derive(Debug, Clone)]
pub struct MacRefresh(mpsc::Sender<MacChange>);

/// The receiving end of the queue; one job reads it at a time.
#[derive(Debug, Clone)]
pub struct Suggestions(Arc<Mutex<mpsc::Receiver<MacChange>>>);

/// Creates the queue between the engine and the job.
#[must_use]
pub fn queue() -> (MacRefresh, Suggestions) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    (MacRefresh(sender), Suggestions(Arc::new(Mutex::new(receiver))))
}

impl MacRefresh {
    /// Suggests a change; never waits.
    pub fn suggest(&self, change: MacChange) {
        // A full queue loses nothing: the token will be verified again.
        let _ = self.0.try_send(change);
    }
}

/// Writes suggestions until the engine is gone.
pub async fn run(suggestions: Suggestions, store: Store) {
    let mut suggestions = suggestions.0.lock().await;
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while suggestions.recv_many(&mut batch, MAX_BATCH).await > 0 {
        tokio::time::sleep(BATCH_DELAY).await;
        while batch.len() < MAX_BATCH
            && let Ok(change) = suggestions.try_recv()
        {
            batch.push(change);
        }
        // One change per token: a statement that joined a row twice would pick one change at random.
        // Sorted, so that replicas that rewrite the same tokens lock them in the same order.
        batch.sort_unstable_by_key(|change| change.id);
        batch.dedup_by_key(|change| change.id);
        match store.replace_macs(&batch).await {
            Ok(written) => tracing::debug!(written, suggested = batch.len(), "MACs rewritten"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "MACs of an older key were not rewritten; they will be suggested again"
            ),
        }
        batch.clear();
    }
}
