//! What a watcher has missed, a page at a time. A fleet that comes back at once is read for by few connections, each
//! lent for one page: whoever is told slowly holds none. Called by the watchers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::position::Position;
use crate::admission::fair_limiter::Refused;
use crate::store::{Change, Connection, Connector, StoreError, WatchPage};

/// How long a read may take.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(2);

/// Why a watcher is told nothing more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// Changes behind the position may be gone, or belong to another server.
    #[error("the position is too old; list what there is, and watch from now on")]
    TooOld,
    /// The watcher has not read for too long.
    #[error("the watcher does not keep up; go on behind the last position")]
    TooSlow,
    /// Too many others read what they have missed.
    #[error(transparent)]
    Busy(#[from] Refused),
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

/// How many pages are read at once, each on a connection of its own.
const AT_ONCE: usize = 4;

/// How long a watcher waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections of all who catch up.
#[derive(Debug)]
pub(crate) struct Readers {
    lines: Connector,
    turns: Semaphore,
    open: Mutex<Open>,
}

/// Connections that nobody uses right now. They go with the last who catches up.
#[derive(Debug, Default)]
struct Open {
    idle: Vec<Connection>,
    catching_up: usize,
}

/// Reads what one watcher has missed.
#[derive(Debug)]
pub struct CatchUp {
    readers: Arc<Readers>,
    since: Position,
    until: Position,
    next: Next,
}

/// Which page comes next.
#[derive(Debug)]
enum Next {
    First,
    Behind(i64),
    None,
}

impl Readers {
    pub(crate) fn new(lines: Connector) -> Arc<Self> {
        Arc::new(Self { lines, turns: Semaphore::new(AT_ONCE), open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn line(&self) -> Result<Connection, StoreError> {
        let idle = self.lock().idle.pop();
        match idle {
            Some(line) => Ok(line),
            None => self.lines.open().await,
        }
    }
}

impl CatchUp {
    pub(crate) fn new(readers: &Arc<Readers>, since: Position, until: Position) -> Self {
        readers.lock().catching_up += 1;
        Self { readers: Arc::clone(readers), since, until, next: Next::First }
    }

    /// Reads the next page; `None` behind the last.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Change>>, WatchError> {
        let behind = match self.next {
            Next::First => None,
            Next::Behind(sequence) => Some(sequence),
            Next::None => return Ok(None),
        };
        let turn = tokio::time::timeout(PATIENCE, self.readers.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Refused::Full.into()) };
        let page = self.read(behind).await.map_err(Arc::new)?;
        if page.purged
            || self.since.epoch != self.until.epoch
            || page.epoch.as_ref() != Some(&self.until.epoch)
        {
            return Err(WatchError::TooOld);
        }
        self.next = page.next.map_or(Next::None, Next::Behind);
        Ok(Some(page.changes))
    }

    async fn read(&self, behind: Option<i64>) -> Result<WatchPage, StoreError> {
        let mut line = self.readers.line().await?;
        let (since, until) = (&self.since.snapshot, &self.until.snapshot);
        let page = line.watch(Some(since), Some(until), behind, READ_DEADLINE).await?;
        self.readers.lock().idle.push(line);
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
