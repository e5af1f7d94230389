//! Reads the changes that a watcher has missed, one page at a time. If many watchers return at once, a
//! few connections serve them all, each lent for one page, so a slow watcher holds none. Called by the
//! watchers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::position::WatchPosition;
use crate::admission::fair_limiter::Refused;
use crate::store::{Change, Connection, Connector, StoreError, WatchPage};

/// The longest time that one read may take.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(2);

/// Why a watcher gets no more changes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// Changes after the position may be purged, or the position belongs to another server.
    #[error("the position is too old; list the tokens, and watch from now on")]
    TooOld,
    /// The watcher has not read for too long.
    #[error("the watcher does not keep up; continue after the last position")]
    TooSlow,
    /// Too many other watchers are catching up.
    #[error(transparent)]
    Busy(#[from] Refused),
    /// The database could not be read.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

/// How many pages are read at the same time, each on its own connection.
const AT_ONCE: usize = 4;

/// How long a watcher waits for a permit to read a page.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections shared by all watchers that catch up.
#[derive(Debug)]
pub(crate) struct Readers {
    connector: Connector,
    permits: Semaphore,
    open: Mutex<Open>,
}

/// Idle connections. They are closed when the last watcher has caught up.
#[derive(Debug, Default)]
struct Open {
    idle: Vec<Connection>,
    catching_up: usize,
}

/// Reads the changes that one watcher has missed.
#[derive(Debug)]
pub struct CatchUp {
    readers: Arc<Readers>,
    since: WatchPosition,
    until: WatchPosition,
    next: Next,
}

/// Which page comes next.
#[derive(Debug)]
enum Next {
    First,
    After(i64),
    None,
}

impl Readers {
    pub(crate) fn new(connector: Connector) -> Arc<Self> {
        Arc::new(Self { connector, permits: Semaphore::new(AT_ONCE), open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        let idle = self.lock().idle.pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.connector.open().await,
        }
    }
}

impl CatchUp {
    pub(crate) fn new(readers: &Arc<Readers>, since: WatchPosition, until: WatchPosition) -> Self {
        readers.lock().catching_up += 1;
        Self { readers: Arc::clone(readers), since, until, next: Next::First }
    }

    /// Reads the next page; `None` after the last page.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Change>>, WatchError> {
        let after = match self.next {
            Next::First => None,
            Next::After(sequence) => Some(sequence),
            Next::None => return Ok(None),
        };
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.readers.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Refused::Full.into()) };
        let page = self.read(after).await.map_err(Arc::new)?;
        if page.purged
            || self.since.epoch != self.until.epoch
            || page.epoch.as_ref() != Some(&self.until.epoch)
        {
            return Err(WatchError::TooOld);
        }
        self.next = page.next.map_or(Next::None, Next::After);
        Ok(Some(page.changes))
    }

    async fn read(&self, after: Option<i64>) -> Result<WatchPage, StoreError> {
        let mut connection = self.readers.connection().await?;
        let (since, until) = (&self.since.snapshot, &self.until.snapshot);
        let page = connection.read_changes(Some(since), Some(until), after, READ_DEADLINE).await?;
        self.readers.lock().idle.push(connection);
        Ok(page)
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        let mut open = self.readers.lock();
        open.catching_up -= 1;
        if open.catching_up == 0 {
            open.idle.clear();
        }
    }
}
