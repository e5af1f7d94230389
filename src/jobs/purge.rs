//! Deletes what serves nobody any more: changes that every feed has long handled, the rows of replicas
//! that are gone, and what a day ago let requests be repeated. Whichever replica gets there first does it.

use std::time::Duration;

use crate::store::Store;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_mins(10);

/// Purges until the server stops it.
pub async fn run(store: Store) {
    loop {
        let purged = async {
            let (changes, replicas) = (store.purge_changes().await?, store.purge_replicas().await?);
            Ok((changes, replicas, store.purge_requests().await?))
        };
        let purged: Result<_, crate::store::StoreError> = purged.await;
        match purged {
            Ok((changes, replicas, requests)) => tracing::debug!(changes, replicas, requests, "purged"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old changes were not purged; trying again later");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
