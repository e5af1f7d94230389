//! A connection of one's own, for those who must not wait for the pool: the engine's loader and feed. Broken
//! ones are thrown away by their owner and opened anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::clock::Clock;
use super::pooling::{Pooling, Route, Session};
use super::{Store, StoreError};

/// How long opening a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long nothing is heard before the connection is asked whether it is alive.
const SILENCE: Duration = Duration::from_secs(5);

/// The channel that a replica says on that it has changed something. A name that outsiders rely on not being
/// theirs.
const CHANNEL: &str = "tokend_changes";

/// Opens lines to one database, once the store is open.
#[derive(Debug, Clone)]
pub struct Connector {
    route: Route,
    ready: Arc<AtomicBool>,
    doubts: Arc<AtomicU64>,
    clock: Clock,
}

/// One connection.
#[derive(Debug)]
pub struct Connection(pub(super) Session);

/// A connection on which replicas' announcements are heard.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Store {
    /// Returns what opens lines to the same database.
    #[must_use]
    pub fn lines(&self) -> Connector {
        self.lines_by(Route::clone(&self.route))
    }

    /// Returns what opens lines to it another way.
    #[must_use]
    pub fn lines_by(&self, route: Route) -> Connector {
        Connector { route, ready: Arc::clone(&self.ready), doubts: Arc::default(), clock: self.clock.clone() }
    }
}

impl Connector {
    /// Returns what is believed of the database's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`StoreError`]: it could not be opened within a second.
    pub async fn open(&self) -> Result<Connection, StoreError> {
        within(CONNECT_DEADLINE, async { Ok(Connection(Session::open(self.ready()?).await?)) }).await
    }

    /// Opens a connection that will read records, again and again.
    ///
    /// # Errors
    /// [`StoreError`]: it could not be opened within a second.
    pub async fn open_for_records(&self) -> Result<Connection, StoreError> {
        within(CONNECT_DEADLINE, async {
            let mut session = Session::open(self.ready()?).await?;
            session.plan_once().await?;
            Ok(Connection(session))
        })
        .await
    }

    /// Tells whether announcements can be heard: not by a pooler in transaction mode, which has nobody to
    /// pass them on to.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        self.route.pooling == Pooling::Session
    }

    /// Opens a connection that hears announcements.
    ///
    /// # Errors
    /// [`StoreError`]: it could not be opened within a second.
    pub async fn listen(&self) -> Result<Listener, StoreError> {
        within(CONNECT_DEADLINE, async {
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.ready()?.current()?);
            let mut listener = PgListener::connect_with(&pool).await?;
            // Its owner opens a new one, at its own pace.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Listener(listener))
        })
        .await
    }
}

impl Connector {
    /// Says that a line has been silent for too long: the network may have swallowed them all.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often there were doubts; a line that was opened before the last one is not to be used.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    fn ready(&self) -> Result<&Route, StoreError> {
        if self.ready.load(Ordering::Acquire) { Ok(&self.route) } else { Err(StoreError::Starting) }
    }
}

impl Listener {
    /// Waits for an announcement; `false` when the connection is lost. After a long silence it is asked
    /// whether it still leads anywhere: a network that swallows everything closes nothing.
    pub async fn heard(&mut self) -> bool {
        loop {
            if let Ok(heard) = tokio::time::timeout(SILENCE, self.0.try_recv()).await {
                return matches!(heard, Ok(Some(_)));
            }
            let alive = within(CONNECT_DEADLINE, async {
                sqlx::query!("SELECT 1 AS alive").fetch_one(&mut self.0).await?;
                Ok(())
            });
            if alive.await.is_err() {
                return false;
            }
        }
    }
}

impl Connection {
    /// Announces that something was changed. Tells the others to look, and nothing more.
    ///
    /// # Errors
    /// [`StoreError`]: nobody may have heard.
    pub async fn announce(&mut self) -> Result<(), StoreError> {
        within(CONNECT_DEADLINE, async {
            // Not waiting for the disk: what is announced has been committed already, and is what counts.
            sqlx::query!(
                "SELECT set_config('synchronous_commit', 'off', true) AS mode, pg_notify($1, '') IS NULL AS sent",
                CHANNEL
            )
            .fetch_one(self.0.single())
            .await?;
            Ok(())
        })
        .await
    }
}

/// Gives up waiting after `deadline`. The connection must be thrown away then.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(StoreError::DeadlineExceeded))
}
