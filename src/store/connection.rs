//! Dedicated connections, for components that must not wait for the pool: the engine's loader and feed.
//! Their owner drops broken ones and opens new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::clock::Clock;
use super::connect_settings::{ConnectSettings, PoolerMode};
use super::pooling::Session;
use super::{Store, StoreError};

/// The longest time of opening a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long a connection may be silent before it is checked.
const SILENCE: Duration = Duration::from_secs(5);

/// The channel on which a replica announces that it has changed something. Other users of the database
/// rely on it not being a name of theirs.
const CHANNEL: &str = "tokend_changes";

/// Opens connections to one database, once the store is open.
#[derive(Debug, Clone)]
pub struct Connector {
    settings: ConnectSettings,
    ready: Arc<AtomicBool>,
    doubts: Arc<AtomicU64>,
    clock: Clock,
}

/// One connection.
#[derive(Debug)]
pub struct Connection(pub(super) Session);

/// A connection that receives the announcements of replicas.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Store {
    /// Returns a connector to the same database.
    #[must_use]
    pub fn connector(&self) -> Connector {
        self.lines_by(ConnectSettings::clone(&self.settings))
    }

    /// Returns a connector to the same database with other settings.
    #[must_use]
    pub fn lines_by(&self, settings: ConnectSettings) -> Connector {
        Connector {
            settings,
            ready: Arc::clone(&self.ready),
            doubts: Arc::default(),
            clock: self.clock.clone(),
        }
    }
}

impl Connector {
    /// Returns the accepted state of the database's clock.
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

    /// Opens a connection that will read records repeatedly.
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

    /// Returns whether announcements can be received: not through a pooler in transaction mode, which
    /// cannot forward them.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        self.settings.pooling == PoolerMode::Session
    }

    /// Opens a connection that receives announcements.
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
    /// Marks all connections as doubtful after one was silent for too long: the network may have
    /// dropped them all.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often connections became doubtful; one opened before the last time must not be used.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    fn ready(&self) -> Result<&ConnectSettings, StoreError> {
        if self.ready.load(Ordering::Acquire) { Ok(&self.settings) } else { Err(StoreError::Starting) }
    }
}

impl Listener {
    /// Waits for an announcement; `false` when the connection is lost. After a long silence the
    /// connection is checked: a network that drops all packets closes nothing.
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
    /// Announces that something was changed. The others are only asked to poll.
    ///
    /// # Errors
    /// [`StoreError`]: the announcement may be lost.
    pub async fn announce(&mut self) -> Result<(), StoreError> {
        within(CONNECT_DEADLINE, async {
            // No wait for the disk: the announced change has already been committed.
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

/// Stops waiting after `deadline`. The connection must be dropped then.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(StoreError::DeadlineExceeded))
}
