//! Warns of tokens that will expire, and deletes those that ended long ago. Whichever replica gets there first
//! does it.

use std::time::Duration;

use crate::store::{Store, StoreError};

/// What is told and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How long before its expiration a token is warned of; each once.
    pub warnings: Vec<Duration>,
    /// How long an expired or revoked token is kept.
    pub kept: Duration,
    /// How often it is looked for.
    pub interval: Duration,
}

/// Warns and deletes until the server stops it.
pub async fn run(store: Store, retention: Retention) {
    loop {
        match round(&store, &retention).await {
            Ok((warned, purged)) => {
                tracing::debug!(warned, purged, "warned of expirations and purged tokens");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "warnings or purges of tokens failed; trying again later");
            }
        }
        tokio::time::sleep(retention.interval).await;
    }
}

/// Does all that is due, a batch at a time.
async fn round(store: &Store, retention: &Retention) -> Result<(u64, u64), StoreError> {
    let (mut warned, mut purged) = (0, 0);
    for ahead in &retention.warnings {
        loop {
            match store.warn_of_expirations(*ahead).await? {
                0 => break,
                batch => warned += batch,
            }
        }
    }
    loop {
        match store.purge_tokens(retention.kept).await? {
            0 => return Ok((warned, purged)),
            batch => purged += batch,
        }
    }
}
