//! Engines for tests that need no database: they never reach one, and their tasks panic on request.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;

use super::cache::Cache;
use super::read_queue::ReadQueue;
use super::{Bounds, Engine, EngineConfig, mac_refresh};
use crate::admission::hash_pool::HashPool;
use crate::changefeed::freshness::Freshness;
use crate::clock;
use crate::metrics::Metrics;
use crate::secret::{CurrentKeyring, DurableCost, Keyring, Prefix};
use crate::store::Store;

const BOUNDS: Bounds = Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::ZERO };

fn keyring() -> Arc<CurrentKeyring> {
    use secrecy::ExposeSecret as _;
    let entry = Keyring::generate_entry(&mut clock::randomness()).unwrap();
    Arc::new(CurrentKeyring::new(Arc::new(Keyring::parse(entry.expose_secret()).unwrap())))
}

/// Returns a store that is not opened.
pub(crate) fn store() -> Store {
    Store::new(PgConnectOptions::new_without_pgpass(), 1)
}

/// Returns a queue of reads without workers.
pub(super) fn read_queue() -> ReadQueue {
    let metrics = Arc::new(Metrics::new().unwrap());
    ReadQueue::new(
        store().connector(),
        Arc::new(Cache::new(1 << 20, Arc::clone(&metrics))),
        Arc::new(Freshness::new(BOUNDS)),
        keyring(),
        Arc::new(Notify::new()),
        metrics,
    )
}

/// Starts an engine.
pub(crate) fn engine(store: &Store) -> Engine {
    let metrics = Arc::new(Metrics::new().unwrap());
    Engine::start(EngineConfig {
        store: store.clone(),
        connector: store.connector(),
        feed_connector: store.connector(),
        keyring: keyring(),
        prefix: Prefix::default(),
        hashing: HashPool::new(1, metrics.work.fallback.clone()),
        limit: DurableCost::new(64, 1, 1).unwrap(),
        refresh: mac_refresh::queue().0,
        bounds: BOUNDS,
        cache_bytes: 1 << 20,
        replica: clock::random_uuid(),
        metrics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::read_queue::WORKERS;

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "this did not come: {what}");
    }

    #[tokio::test]
    async fn an_engine_works_while_its_feed_and_one_worker_do() {
        let store = store();
        let mut engine = engine(&store);
        engine.panic_in_workers(WORKERS - 1);
        until("all but one are down", || engine.loader.down() == WORKERS - 1).await;
        assert!(engine.works());
        engine.panic_in_workers(1);
        until("no worker works", || !engine.works()).await;

        let mut engine = super::engine(&store);
        assert!(engine.works());
        engine.panic_in_feed();
        until("the feed does not work", || !engine.works()).await;
    }
}
