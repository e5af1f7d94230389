//! Seals the audit log, off the path of what is logged. Each seal's head goes to the log too, so that a copy of
//! it exists outside of the database.

use std::sync::Arc;
use std::time::Duration;

use crate::secret::CurrentKeyring;
use crate::store::Store;

/// How often it is looked for events to seal.
const INTERVAL: Duration = Duration::from_secs(2);

/// Seals until the server stops it.
pub async fn run(store: Store, keyring: Arc<CurrentKeyring>) {
    let mut candidate = None;
    let mut failing = false;
    loop {
        match store.seal_events(candidate.as_ref(), &keyring.get()).await {
            Ok((sealed, next)) => {
                failing = false;
                candidate = next;
                if let Some(sealed) = sealed {
                    let seal: String = hex(&sealed.seal);
                    let (sequence, last_id) = (sealed.header.sequence, sealed.header.last_id);
                    tracing::info!(sequence, last_id, seal, "audit log sealed");
                    continue;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the audit log was not sealed; trying on");
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
