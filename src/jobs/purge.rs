//! Deletes data that is no longer needed: changes that every feed has handled, the rows of replicas
//! that are gone, requests that can no longer be repeated after a day, sessions that are over,
//! and old links and codes. Any replica may do it.

use std::time::Duration;

use crate::store::Store;

/// The interval between two purges.
const INTERVAL: Duration = Duration::from_mins(10);

/// The wait while nothing may be deleted yet.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Purges until the server stops it.
pub async fn run(store: Store) {
    loop {
        if !store.may_delete() {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let purged = async {
            let (changes, replicas) = (store.purge_changes().await?, store.purge_replicas().await?);
            let (sessions, links) = (store.purge_sessions().await?, store.purge_links().await?);
            let links = links.saturating_add(store.purge_login_codes().await?);
            Ok((changes, replicas, store.purge_requests().await?, sessions, links))
        };
        let purged: Result<_, crate::store::StoreError> = purged.await;
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
