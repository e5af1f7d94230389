//! Tells watchers what changes. One hub a replica follows the changes on a line of its own, a beat after the
//! engine's feed has handled them, and hands each batch to every watcher; one who comes with an older position
//! is first told what it has missed. Started by the server, called by the gRPC face.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

pub use super::catch_up::{CatchUp, WatchError};
pub use super::position::{Position, PositionError};

use super::catch_up::{READ_DEADLINE, Readers};
use crate::clock::BootInstant;
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::store::{Change, Connection, Connector, Reading, StoreError};

/// How many batches a watcher may be behind before it is dropped: with the most that a batch holds, some ten
/// megabytes a replica.
const BEHIND: usize = 64;

/// How soon a failed read is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What changed between two positions.
#[derive(Debug)]
pub struct Batch {
    /// The changes, each token's in the order in which they were committed.
    pub changes: Vec<Change>,
    /// Where whoever has been told them is; `None` within a batch that goes on in the next one.
    pub position: Option<Position>,
    /// The database's time that everything before has been told of.
    pub as_of: OffsetDateTime,
    /// It tells all that happened behind the batch before it; otherwise some of that may be lost.
    pub goes_on: bool,
}

/// Follows the changes for all watchers of a replica.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    heartbeat: Duration,
    _tasks: Tasks,
}

#[derive(Debug)]
struct Shared {
    lines: Connector,
    batches: broadcast::Sender<Arc<Batch>>,
    /// Where the hub is, and when it got there, for those who come; `None` before its first read, and while it
    /// tells of more than fits into a batch.
    now: Mutex<Option<(Position, OffsetDateTime)>>,
}

/// What a new watcher begins with.
#[derive(Debug)]
pub struct Watch {
    /// Where the hub was when it subscribed.
    pub position: Position,
    /// The database's time of that.
    pub as_of: OffsetDateTime,
    /// Everything behind that.
    pub batches: broadcast::Receiver<Arc<Batch>>,
}

impl Hub {
    /// Starts the hub. It reads whenever `news` is notified, and as often as `heartbeat` says.
    #[must_use]
    pub fn start(lines: Connector, news: Arc<Notify>, heartbeat: Duration, metrics: Arc<Metrics>) -> Self {
        let (batches, _) = broadcast::channel(BEHIND);
        let readers = Readers::new(lines.clone());
        let shared = Arc::new(Shared { lines, batches, now: Mutex::default() });
        let mut tasks = Tasks::new(metrics);
        let followed = Arc::clone(&shared);
        tasks.keep(Task::Watch, move || Arc::clone(&followed).follow(Arc::clone(&news), heartbeat));
        Self { shared, readers, heartbeat, _tasks: tasks }
    }

    /// Returns how often watchers hear something, at least.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Subscribes a watcher; `None` while the hub has not reached the database.
    #[must_use]
    pub fn watch(&self) -> Option<Watch> {
        // Under the lock under which a batch is told: it is either behind the position or among the batches.
        let now = self.shared.lock();
        let (position, as_of) = now.clone()?;
        Some(Watch { position, as_of, batches: self.shared.batches.subscribe() })
    }

    /// Prepares to read what happened between two positions.
    #[must_use]
    pub fn catch_up(&self, since: Position, until: Position) -> CatchUp {
        CatchUp::new(&self.readers, since, until)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<(Position, OffsetDateTime)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, news: Arc<Notify>, heartbeat: Duration) {
        let (mut line, mut position) = (None, None);
        let mut failing = false;
        loop {
            let began = Instant::now();
            let mut pause = heartbeat;
            match self.read(&mut line, &mut position).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // Watchers hear nothing, and know what that means.
                    line = None;
                    pause = RETRY;
                    let starting = matches!(error, StoreError::Starting);
                    if !starting && !std::mem::replace(&mut failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "watchers are told nothing until changes can be read; trying on"
                        );
                    }
                }
            }
            let _ = tokio::time::timeout_at(began + pause, news.notified()).await;
        }
    }

    /// Reads what is new and tells it; a beat without news is told too. What was told before a failure is told
    /// again.
    async fn read(
        &self,
        slot: &mut Option<Connection>,
        position: &mut Option<Position>,
    ) -> Result<(), StoreError> {
        let mut line = match slot.take() {
            Some(line) => line,
            None => self.lines.open().await?,
        };
        let since = position.as_ref().map(|position| &position.snapshot);
        let sent = BootInstant::now();
        let mut page = line.watch(since, None, None, READ_DEADLINE).await?;
        // Without a mark it is too early: the feed puts it.
        let epoch = page.epoch.clone().ok_or(StoreError::Starting)?;
        let reached = Position { epoch: epoch.clone(), snapshot: page.snapshot.clone() };
        // Watchers judge by it what has expired.
        let as_of = self.lines.clock().plausible(Reading { sent, time: page.database_time });
        let goes_on = !page.purged && position.as_ref().is_some_and(|position| position.epoch == epoch);
        if goes_on {
            // Told in pages; only with the last one is the position reached.
            while let Some(next) = page.next {
                *self.lock() = None;
                self.tell(Batch { changes: page.changes, position: None, as_of, goes_on });
                page = line.watch(since, Some(&reached.snapshot), Some(next), READ_DEADLINE).await?;
                if page.purged || page.epoch.as_ref() != Some(&epoch) {
                    return Err(StoreError::OtherServer);
                }
            }
        } else {
            // Watchers of before see that their positions are too old.
            page.changes.clear();
        }
        let mut now = self.lock();
        *now = Some((reached.clone(), as_of));
        self.tell(Batch { changes: page.changes, position: Some(reached.clone()), as_of, goes_on });
        drop(now);
        *position = Some(reached);
        *slot = Some(line);
        Ok(())
    }

    fn tell(&self, batch: Batch) {
        // Fails when nobody watches.
        let _ = self.batches.send(Arc::new(batch));
    }
}
