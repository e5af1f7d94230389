//! What lives as long as a server: started once the database is open, drained and closed at the shutdown. Made by
//! `wire`, used by `run`. Knows no listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::config::ServerConfig;
use crate::api::drain::DrainTrigger;
use crate::api::health::Health;
use crate::auth::sessions::Sessions;
use crate::changefeed::hub::Hub;
use crate::jobs::{last_use, purge, retention, seal};
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::secret::CurrentKeyring;
use crate::store::Store;
use crate::verify::Engine;

/// How long the last writes may take.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Everything that lives as long as the server.
pub(super) struct Running {
    pub(super) store: Store,
    pub(super) keyring: Arc<CurrentKeyring>,
    pub(super) engine: Arc<Engine>,
    pub(super) hub: Arc<Hub>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Health,
    pub(super) jobs: Tasks,
    /// Writes the last use of tokens. Not one of the jobs, since it ends after the last call.
    pub(super) flushing: Option<(watch::Sender<()>, Tasks)>,
    pub(super) draining: DrainTrigger,
}

impl Running {
    /// Starts what needs the database, once it is open.
    pub(super) fn begin(&mut self, config: &ServerConfig) {
        self.engine.wake();
        let (engine, store, metrics) =
            (Arc::clone(&self.engine), self.store.clone(), Arc::clone(&self.metrics));
        let (end, ended) = watch::channel(());
        let mut flushing = Tasks::new(Arc::clone(&metrics));
        let (flushed, interval) = (store.clone(), config.last_use_interval);
        flushing.keep(Task::LastUse, move || {
            let (engine, metrics) = (Arc::clone(&engine), Arc::clone(&metrics));
            last_use::run(engine, flushed.clone(), metrics, interval, ended.clone())
        });
        self.flushing = Some((end, flushing));
        let (sealed, keyring, counted) =
            (store.clone(), Arc::clone(&self.keyring), Arc::clone(&self.metrics));
        self.jobs
            .keep(Task::Seal, move || seal::run(sealed.clone(), Arc::clone(&keyring), Arc::clone(&counted)));
        let (kept, retention) = (store.clone(), config.retention.clone());
        self.jobs.keep(Task::Retention, move || retention::run(kept.clone(), retention.clone()));
        let purging = Arc::clone(&self.metrics);
        self.jobs.keep(Task::Purge, move || purge::run(store.clone(), Arc::clone(&purging)));
    }

    /// Ends the jobs and the calls that wait, and has health say so.
    pub(super) fn drain(&mut self) {
        self.jobs.abort_all();
        self.health.not_serving("shutting down");
        self.draining.drain();
    }

    /// Writes what is not written yet, and closes the store.
    pub(super) async fn close(self) {
        let last = async {
            let flushed = async {
                if let Some((end, mut flushing)) = self.flushing {
                    drop(end);
                    flushing.finished().await;
                }
            };
            // At once: a slow flush must not cost what the limits have leased.
            tokio::join!(flushed, self.engine.close());
            self.store.close().await;
        };
        let _ = tokio::time::timeout(LAST_WRITES, last).await;
    }
}
