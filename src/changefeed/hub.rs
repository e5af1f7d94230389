//! Sends changes to watchers. One hub per replica follows the changes on its own connection, shortly
//! after the engine's feed has handled them, and sends each batch to every watcher; a watcher with an
//! older position first catches up. Started by the server, called by the gRPC API.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

pub use super::catch_up::{CatchUp, WatchError};
pub use super::position::{PositionError, WatchPosition};

use super::catch_up::{READ_DEADLINE, Readers};
use crate::clock::BootInstant;
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::store::{Change, ClockReading, Connection, Connector, StoreError};

/// How many batches a watcher may be behind before it is dropped: at the maximum batch size, about ten
/// megabytes per replica.
const MAX_BATCHES_BEHIND: usize = 64;

/// The delay before a failed read is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a watcher waits for a hub that has not reached the database yet, and how often it looks.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(3);
const SUBSCRIBE_INTERVAL: Duration = Duration::from_millis(20);

/// What changed between two positions.
#[derive(Debug)]
pub struct Batch {
    /// The changes, each token's in the order in which they were committed.
    pub changes: Vec<Change>,
    /// The position after this batch; `None` if the next batch continues it.
    pub position: Option<WatchPosition>,
    /// The database's time up to which all changes have been sent.
    pub as_of: OffsetDateTime,
    /// The batch has every change since the batch before it; otherwise some may be missing.
    pub is_continuous: bool,
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
    connector: Connector,
    batches: broadcast::Sender<Arc<Batch>>,
    /// The hub's position and when it was reached, for new watchers; `None` before the first read, and
    /// while changes that need more than one batch are being sent.
    now: Mutex<Option<(WatchPosition, OffsetDateTime)>>,
}

/// What a new watcher starts with.
#[derive(Debug)]
pub struct Watch {
    /// The hub's position when the watcher subscribed.
    pub position: WatchPosition,
    /// The database's time at that position.
    pub as_of: OffsetDateTime,
    /// Every batch after that position.
    pub batches: broadcast::Receiver<Arc<Batch>>,
}

impl Hub {
    /// Starts the hub. It reads whenever `new_changes` is notified, and at least once per `heartbeat`.
    #[must_use]
    pub fn start(
        connector: Connector,
        new_changes: Arc<Notify>,
        heartbeat: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (batches, _) = broadcast::channel(MAX_BATCHES_BEHIND);
        let readers = Readers::new(connector.clone());
        let shared = Arc::new(Shared { connector, batches, now: Mutex::default() });
        let mut tasks = Tasks::new(metrics);
        let followed = Arc::clone(&shared);
        tasks.keep(Task::Watch, move || Arc::clone(&followed).follow(Arc::clone(&new_changes), heartbeat));
        Self { shared, readers, heartbeat, _tasks: tasks }
    }

    /// Returns the longest interval between two batches to watchers.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Subscribes a watcher, once the hub has reached the database.
    ///
    /// # Errors
    /// [`WatchError`]: the hub has not reached the database in time.
    pub async fn subscribe(&self) -> Result<Watch, WatchError> {
        let subscribed = async {
            loop {
                match self.watch() {
                    Some(watch) => return watch,
                    None => tokio::time::sleep(SUBSCRIBE_INTERVAL).await,
                }
            }
        };
        let timeout = tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed).await;
        timeout.map_err(|_| WatchError::Store(Arc::new(StoreError::Starting)))
    }

    /// Subscribes a watcher; `None` while the hub has not reached the database, or sends many changes.
    fn watch(&self) -> Option<Watch> {
        // Takes the lock under which batches are sent: a batch is either before the position or among
        // the batches.
        let now = self.shared.lock();
        let (position, as_of) = now.clone()?;
        Some(Watch { position, as_of, batches: self.shared.batches.subscribe() })
    }

    /// Prepares to read the changes between two positions.
    #[must_use]
    pub fn catch_up(&self, since: WatchPosition, until: WatchPosition) -> CatchUp {
        CatchUp::new(&self.readers, since, until)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<(WatchPosition, OffsetDateTime)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, new_changes: Arc<Notify>, heartbeat: Duration) {
        let (mut connection, mut position) = (None, None);
        let mut failing = false;
        loop {
            let began = Instant::now();
            let mut pause = heartbeat;
            match self.read(&mut connection, &mut position).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // Watchers receive nothing, and know what that means.
                    connection = None;
                    pause = RETRY_DELAY;
                    let starting = matches!(error, StoreError::Starting);
                    if !starting && !std::mem::replace(&mut failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "watchers receive nothing until changes can be read; trying again"
                        );
                    }
                }
            }
            let _ = tokio::time::timeout_at(began + pause, new_changes.notified()).await;
        }
    }

    /// Reads new changes and sends them; a heartbeat without changes is sent too. What was sent before
    /// a failure is sent again.
    async fn read(
        &self,
        slot: &mut Option<Connection>,
        position: &mut Option<WatchPosition>,
    ) -> Result<(), StoreError> {
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.connector.open().await?,
        };
        let since = position.as_ref().map(|position| &position.snapshot);
        let sent = BootInstant::now();
        let mut page = connection.read_changes(since, None, None, READ_DEADLINE).await?;
        // Without an epoch it is too early: the feed writes its mark.
        let epoch = page.epoch.clone().ok_or(StoreError::Starting)?;
        let reached = WatchPosition { epoch: epoch.clone(), snapshot: page.snapshot.clone() };
        // Watchers use it to decide what has expired.
        let as_of = self.connector.clock().plausible(ClockReading { sent, time: page.database_time });
        let is_continuous = !page.purged && position.as_ref().is_some_and(|position| position.epoch == epoch);
        if is_continuous {
            // Sent in pages; the position is reached only with the last one.
            while let Some(next) = page.next {
                *self.lock() = None;
                self.send(Batch { changes: page.changes, position: None, as_of, is_continuous });
                page = connection
                    .read_changes(since, Some(&reached.snapshot), Some(next), READ_DEADLINE)
                    .await?;
                if page.purged || page.epoch.as_ref() != Some(&epoch) {
                    return Err(StoreError::OtherServer);
                }
            }
        } else {
            // Earlier watchers learn that their positions are too old.
            page.changes.clear();
        }
        let mut now = self.lock();
        *now = Some((reached.clone(), as_of));
        self.send(Batch { changes: page.changes, position: Some(reached.clone()), as_of, is_continuous });
        drop(now);
        *position = Some(reached);
        *slot = Some(connection);
        Ok(())
    }

    fn send(&self, batch: Batch) {
        // Fails when there are no watchers.
        let _ = self.batches.send(Arc::new(batch));
    }
}
