//! A connection of one's own, for those who must not wait for the pool: the engine's loader and feed. Broken
//! ones are thrown away by their owner and opened anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};

use super::{Store, StoreError, prepare};

/// How long opening a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// The channel that a replica says on that it has changed something. A name that outsiders rely on not being
/// theirs.
const CHANNEL: &str = "tokend_changes";

/// Which life of which server an answer comes from; equal only within one life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Takes what the database's `server_epoch` says.
    #[must_use]
    pub fn parse(text: String) -> Self {
        Self(text.into())
    }

    /// Returns what the database said.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Opens lines to one database, once the store is open.
#[derive(Debug, Clone)]
pub struct Lines {
    options: PgConnectOptions,
    ready: Arc<AtomicBool>,
}

/// One connection.
#[derive(Debug)]
pub struct Line(pub(super) PgConnection);

/// A connection on which replicas' announcements are heard.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Store {
    /// Returns what opens lines to the same database.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines {
            options: PgConnectOptions::clone(&self.pool.connect_options()),
            ready: Arc::clone(&self.ready),
        }
    }
}

impl Lines {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`StoreError`]: it could not be opened within a second.
    pub async fn open(&self) -> Result<Line, StoreError> {
        within(CONNECT_DEADLINE, async {
            let mut connection = self.ready()?.connect().await?;
            prepare(&mut connection).await?;
            Ok(Line(connection))
        })
        .await
    }

    /// Opens a connection that hears announcements.
    ///
    /// # Errors
    /// [`StoreError`]: it could not be opened within a second.
    pub async fn listen(&self) -> Result<Listener, StoreError> {
        within(CONNECT_DEADLINE, async {
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.ready()?.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            // Its owner opens a new one, at its own pace.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Listener(listener))
        })
        .await
    }
}

impl Lines {
    fn ready(&self) -> Result<&PgConnectOptions, StoreError> {
        if self.ready.load(Ordering::Acquire) { Ok(&self.options) } else { Err(StoreError::Starting) }
    }
}

impl Listener {
    /// Waits for an announcement; `false` when the connection is lost.
    pub async fn heard(&mut self) -> bool {
        matches!(self.0.try_recv().await, Ok(Some(_)))
    }
}

impl Line {
    /// Announces that something was changed. Tells the others to look, and nothing more.
    ///
    /// # Errors
    /// [`StoreError`]: nobody may have heard.
    pub async fn announce(&mut self) -> Result<(), StoreError> {
        within(CONNECT_DEADLINE, async {
            sqlx::query!("SELECT pg_notify($1, '') IS NULL AS sent", CHANNEL).fetch_one(&mut self.0).await?;
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
