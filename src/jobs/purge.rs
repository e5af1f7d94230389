//! Deletes data that is no longer needed: changes that every feed has handled, the rows of replicas
//! that are gone, requests that can no longer be repeated after a day, sessions that are over, old links and codes, and
//! allowances that say nothing. Counts leases of credits as lost whose replicas ended. Any replica may do it.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// The interval between two purges.
const INTERVAL: Duration = Duration::from_mins(10);

/// How old a lease of credits is that its replica will not settle any more: a living one does so within seconds.
const LOST_AFTER: Duration = Duration::from_mins(10);

/// How long a lease that seems that old may still be settled: the database's clock may have jumped, and a living replica
/// settles within some seconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// The wait while nothing may be deleted yet.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Purges until the server stops it.
pub async fn run(store: Store, metrics: Arc<Metrics>) {
    loop {
        if !store.may_delete() {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let purged = async {
            let (changes, replicas) = (store.purge_changes().await?, store.purge_replicas().await?);
            let (sessions, links) = (store.purge_sessions().await?, store.purge_links().await?);
            let links = links.saturating_add(store.purge_login_codes().await?);
            purge_limits(&store, &metrics).await?;
            Ok((changes, replicas, store.purge_requests().await?, sessions, links))
        };
        let purged: Result<_, StoreError> = purged.await;
        match purged {
            Ok((changes, replicas, requests, sessions, links)) => {
                tracing::debug!(changes, replicas, requests, sessions, links, "purged");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old changes were not purged; trying again later");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Counts lost leases of credits, and deletes allowances that say nothing.
async fn purge_limits(store: &Store, metrics: &Metrics) -> Result<(), StoreError> {
    loop {
        let old = store.old_credit_leases(LOST_AFTER).await?;
        if old.is_empty() {
            break;
        }
        tokio::time::sleep(SETTLED_WITHIN).await;
        let (leases, credits) = store.lose_credit_leases(&old).await?;
        if leases == 0 {
            break;
        }
        metrics.limits.lost(credits);
        tracing::warn!(
            leases,
            credits,
            "replicas ended without returning credits that they had leased; they count as lost"
        );
    }
    while store.purge_allowances().await? > 0 {}
    Ok(())
}
