//! Seals the audit log, in the background. Each seal is also logged, so that a copy of it exists
//! outside the database. Started by the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::secret::{CurrentKeyring, Keyring};
use crate::store::{Candidate, SealPass, Sealed, Store, StoreError};

/// The interval between two passes.
const INTERVAL: Duration = Duration::from_secs(2);

/// How old an event without a seal may become before an error is logged.
const LATE_AFTER: Duration = Duration::from_mins(1);

/// Seals until the server stops the task.
pub async fn run(store: Store, keyring: Arc<CurrentKeyring>, metrics: Arc<Metrics>) {
    let mut last: Option<SealPass> = None;
    let (mut failing, mut late) = (false, false);
    // The age of the oldest event without a seal, and when that was last known.
    let (mut known, mut age) = (Instant::now(), Duration::ZERO);
    loop {
        let made = match pass(&store, &keyring.get(), last.as_ref()).await {
            Ok(pass) => {
                failing = false;
                (known, age) = (Instant::now(), pass.oldest_unsealed.unwrap_or_default());
                let made = pass.newest.filter(|_| pass.made);
                last = Some(pass);
                made
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the audit log was not sealed; trying again");
                }
                None
            }
        };
        // While the database cannot be read, such an event grows older, if there is one.
        let now = if failing { age + known.elapsed() } else { age };
        metrics.work.unsealed(now);
        if now > LATE_AFTER && !std::mem::replace(&mut late, true) {
            tracing::error!(age = ?now, "events of the audit log have had no seal for a minute");
        }
        late &= now > LATE_AFTER;
        // After a seal there may be more events to seal at once.
        match made {
            Some(sealed) => report(&sealed),
            None => tokio::time::sleep(INTERVAL).await,
        }
    }
}

async fn pass(store: &Store, keyring: &Keyring, last: Option<&SealPass>) -> Result<SealPass, StoreError> {
    let (newest, candidate): (_, Option<&Candidate>) = match last {
        Some(last) => (last.newest, last.candidate.as_ref()),
        None => (store.newest_seal(keyring).await?, None),
    };
    store.seal_events(newest, candidate, keyring).await
}

fn report(sealed: &Sealed) {
    let seal = hex::encode(sealed.seal);
    let (sequence, last_id) = (sealed.header.sequence, sealed.header.last_id);
    tracing::info!(sequence, last_id, seal, "audit log sealed");
}
