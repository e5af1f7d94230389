//! Follows changes: removes changed records, and then, in this order, publishes how fresh the rest
//! is. A task of the local verifier. While it cannot follow, the cached records age and are not
//! used; when it may have missed something, all are removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokend_core::boot_instant::BootInstant;
use tokend_core::secret::{Secret, TokenId};

use super::Shared;
use crate::client::Client;
use crate::enums::ErrorReason;
use crate::error::{Error, ErrorKind};
use crate::retry::pause;
use crate::watch::{ChangeBatch, Changes};

/// How many heartbeats may be missed, and how long the first message may take, before the watch is
/// restarted.
const MAX_MISSED_HEARTBEATS: u32 = 4;
const MIN_SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The follower.
pub(super) struct Follower {
    client: Client,
    shared: Arc<Shared>,
    /// The caller's own token; a change of it may change which tokens it can judge.
    own: Option<TokenId>,
    /// The position of the last complete batch.
    position: Option<String>,
    /// Nothing was received since everything was removed.
    cleared: bool,
    silence_timeout: Duration,
}

impl Follower {
    pub(super) fn new(client: Client, shared: Arc<Shared>) -> Self {
        Self {
            client,
            shared,
            own: None,
            position: None,
            cleared: false,
            silence_timeout: MIN_SILENCE_TIMEOUT,
        }
    }

    /// Follows forever.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.position.is_none() && !self.cleared {
                self.restart();
            }
            let mut received = false;
            let began = Instant::now();
            let known = self.client.current_secret();
            let own =
                known.as_ref().map(|known| Secret::parse(known.secret.expose_secret(), &self.shared.prefix));
            self.own = own.and_then(Result::ok).map(|secret| secret.id());
            let error = match self.client.watch_tokens(None, self.position.as_deref()).await {
                Ok(mut changes) => {
                    self.shared.cache.connected();
                    self.follow(&mut changes, &mut received).await
                }
                Err(error) => error,
            };
            // A watch that ends as soon as it has begun will probably do so again.
            failures = if received && began.elapsed() > MIN_SILENCE_TIMEOUT { 1 } else { failures + 1 };
            if self.client.has_another(&error, known.as_ref()) {
                failures = 0;
                continue;
            }
            // One watch that ends is normal: a draining replica ends all of its watches.
            if failures > 1 {
                self.shared.failed("changes cannot be watched, so the server judges every secret", &error);
            }
            if has_missed_changes(&error) {
                self.position = None;
            }
            tokio::time::sleep(pause(failures).max(error.retry_after().unwrap_or_default())).await;
        }
    }

    /// Handles messages until the watch ends or is silent for too long.
    async fn follow(&mut self, changes: &mut Changes, received: &mut bool) -> Error {
        loop {
            match tokio::time::timeout(self.silence_timeout, changes.next()).await {
                Ok(Ok(Some(batch))) => {
                    if batch.changes.iter().any(|change| self.own == Some(change.token_id)) {
                        self.position = None;
                        self.cleared = false;
                        return Error::lost();
                    }
                    self.apply(batch);
                }
                Ok(Ok(None)) => return Error::lost(),
                Ok(Err(error)) => return error,
                Err(_) => return Error::overdue(),
            }
            *received = true;
        }
    }

    fn apply(&mut self, batch: ChangeBatch) {
        self.cleared = false;
        let ids: Vec<_> = batch.changes.iter().map(|change| change.token_id).collect();
        let last = batch.position.is_some();
        self.shared.cache.forget(&ids, batch.as_of, last);
        if last {
            self.position = batch.position;
            self.shared.freshness.publish(batch.as_of, BootInstant::now());
        }
        self.silence_timeout =
            batch.heartbeat_interval.saturating_mul(MAX_MISSED_HEARTBEATS).max(MIN_SILENCE_TIMEOUT);
    }

    fn restart(&mut self) {
        self.cleared = true;
        self.shared.starts.fetch_add(1, Ordering::Relaxed);
        // Freshness is withdrawn first: it must not cover records that are being removed.
        self.shared.freshness.restart();
        self.shared.cache.clear();
    }
}

/// Returns whether changes may have been missed: the position is too old, or of another tokend.
fn has_missed_changes(error: &Error) -> bool {
    error.reason() == Some(ErrorReason::PositionTooOld) || error.kind() == ErrorKind::Invalid
}
