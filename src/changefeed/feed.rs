//! Polls the changes in the database, invalidates what they affect, and only then publishes how fresh
//! the cache is. One task, started by the engine. Every failure is retried; meanwhile the cache ages
//! and stops answering by itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::freshness::{Freshness, Poll};
use super::registration::Registration;
use crate::clock::{BootInstant, random_uuid};
use crate::metrics::Metrics;
use crate::secret::TokenId;
use crate::store::{
    ChangePage, ClockCheck, ClockReading, Connection, Connector, Epoch, LEASE, Snapshot, StoreError,
    TOLERANCE,
};

/// The delay before a failed poll is retried.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The longest time a poll may take before its connection is dropped.
const POLL_DEADLINE: Duration = Duration::from_millis(1_500);

/// The shortest interval between two polls, however often the feed is woken.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The interval at which the replica's row is renewed: well within its lease.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(LEASE.as_secs() / 4);

/// What has changed in the database, as far as is known.
#[derive(Debug, Clone, Copy)]
pub enum Invalidation<'a> {
    /// These tokens.
    Tokens(&'a [TokenId]),
    /// Any token: changes were missed, or the database is another server.
    Everything,
}

/// Callback that receives what has changed, before the new freshness is published.
#[derive(Clone)]
pub struct Invalidate(Arc<dyn Fn(Invalidation<'_>) + Send + Sync>);

impl Invalidate {
    /// Wraps the callback.
    pub fn new(call: impl Fn(Invalidation<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    fn tokens(&self, ids: &[TokenId]) {
        (self.0)(Invalidation::Tokens(ids));
    }

    fn everything(&self) {
        (self.0)(Invalidation::Everything);
    }
}

impl fmt::Debug for Invalidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invalidate")
    }
}

/// What a feed works with.
#[derive(Debug, Clone)]
pub(crate) struct FeedConfig {
    /// Opens the feed's connection.
    pub(crate) connector: Connector,
    /// Receives what has changed.
    pub(crate) invalidate: Invalidate,
    /// Where the feed publishes how fresh the cache is.
    pub(crate) freshness: Arc<Freshness>,
    /// Makes the feed poll at once.
    pub(crate) wake: Arc<Notify>,
    /// Notified after a poll that found changes.
    pub(crate) new_changes: Arc<Notify>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registration: Arc<Registration>,
}

/// Follows the changes of one database.
#[derive(Debug)]
pub(crate) struct Feed {
    config: FeedConfig,
    connection: Option<Connection>,
    /// The snapshot of the last handled poll, and the epoch of its server.
    position: Option<(Snapshot, Epoch)>,
    /// When this replica's row was last renewed, and on which server.
    renewed: Option<(BootInstant, Option<Epoch>)>,
}

impl Feed {
    /// Creates a feed that has not polled yet.
    pub(crate) fn new(config: FeedConfig) -> Self {
        Self { config, connection: None, position: None, renewed: None }
    }

    /// Polls forever.
    pub(crate) async fn run(mut self) {
        let interval = self.config.freshness.bounds().max_staleness / 4;
        let mut failing = false;
        loop {
            let began = Instant::now();
            let on_open_connection = self.connection.is_some();
            let pause = match self.poll().await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the feed follows the database again");
                    }
                    interval
                }
                Err(error) => {
                    self.connection = None;
                    if on_open_connection && matches!(error, StoreError::DeadlineExceeded) {
                        self.config.connector.doubt();
                    }
                    self.config.metrics.engine.poll_failed();
                    // Before the database's first response, the server itself reports what it waits
                    // for.
                    let starting = matches!(error, StoreError::Starting);
                    if !starting && !std::mem::replace(&mut failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "the feed cannot follow the database; trying again");
                    }
                    RETRY_DELAY.min(interval)
                }
            };
            tokio::time::sleep_until(began + MIN_INTERVAL).await;
            // A wake-up that came during the poll is kept, and ends the pause at once.
            let _ = tokio::time::timeout_at(began + pause, self.config.wake.notified()).await;
        }
    }

    /// Handles everything that was committed before this call, then publishes that it did.
    async fn poll(&mut self) -> Result<(), StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.config.connector.open().await?,
        };
        let registered = self.renew(&mut connection).await?;
        let sent = BootInstant::now();
        let since = self.position.as_ref().map(|(snapshot, _)| snapshot.clone());
        let first = connection.read_changed_ids(since.as_ref(), None, POLL_DEADLINE).await?;
        // Checks the deadline again with the clock that continues while the machine sleeps: a response
        // that took an hour would set the database's time an hour ahead.
        if BootInstant::now().since(sent) > POLL_DEADLINE {
            return Err(StoreError::DeadlineExceeded);
        }
        let Some(epoch) = first.epoch.clone() else {
            connection.mark_server(random_uuid(), POLL_DEADLINE).await?;
            self.connection = Some(connection);
            self.config.wake.notify_one();
            return Ok(());
        };
        if registered && !self.is_registered(&epoch, sent) {
            self.renewed = None;
            self.connection = Some(connection);
            self.config.wake.notify_one();
            return Ok(());
        }
        let mut changes = 0;
        let follows = !first.purged && first.unrecorded.is_none();
        self.config.freshness.set_recording(first.unrecorded.as_deref());
        if follows && self.position.as_ref().is_some_and(|(_, known)| *known == epoch) {
            changes = self.forget_changes(&mut connection, &first, since.as_ref(), &epoch).await?;
        } else {
            // The snapshot is taken; now clear the cache and keep out earlier reads; then publish.
            if first.unrecorded.is_none() {
                tracing::info!("the cache starts empty");
            }
            self.config.metrics.engine.restarted();
            self.config.invalidate.everything();
        }
        let poll = Poll { sent, database_time: first.database_time, epoch: epoch.clone(), registered };
        let noted = self.note_clock(&poll);
        // While changes are not recorded, the next poll cannot know what it has missed either.
        self.position = first.unrecorded.is_none().then_some((first.snapshot, epoch));
        let now = BootInstant::now();
        self.config.freshness.publish(poll, noted, now);
        self.config.metrics.engine.poll(now.since(sent), changes);
        if changes > 0 {
            self.config.new_changes.notify_one();
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Compares the database's clock with its earlier readings.
    fn note_clock(&mut self, poll: &Poll) -> ClockCheck {
        let expected = self.config.freshness.read(poll.sent).map(|reading| reading.now);
        let noted = self
            .config
            .connector
            .clock()
            .note(ClockReading { sent: poll.sent, time: poll.database_time }, &poll.epoch);
        let Some(expected) = expected else { return noted };
        let ahead = (poll.database_time - expected).as_seconds_f64();
        match noted {
            ClockCheck::Doubted(true) => {
                self.config.metrics.engine.clock_stepped();
                tracing::warn!(
                    ahead,
                    "the database's clock appears to have been changed; the new time counts once it lasts"
                );
            }
            ClockCheck::Reset if ahead.abs() > TOLERANCE.as_secs_f64() => {
                tracing::warn!(ahead, "the time is taken from the database's clock again");
            }
            _ => return noted,
        }
        // The row of this replica looks older or younger than it is.
        self.renewed = None;
        noted
    }

    /// Invalidates the changed tokens page by page, and returns their count. Changes that commit
    /// meanwhile are in the next poll: it continues from the first page's snapshot.
    async fn forget_changes(
        &self,
        connection: &mut Connection,
        first: &ChangePage,
        since: Option<&Snapshot>,
        epoch: &Epoch,
    ) -> Result<usize, StoreError> {
        let mut changes = first.ids.len();
        self.config.invalidate.tokens(&first.ids);
        let mut next = first.next.clone();
        while let Some(from) = next {
            let page = connection.read_changed_ids(since, Some(&from), POLL_DEADLINE).await?;
            if page.epoch.as_ref() != Some(epoch) || page.purged || page.unrecorded.is_some() {
                return Err(StoreError::OtherServer);
            }
            changes += page.ids.len();
            self.config.invalidate.tokens(&page.ids);
            next = page.next;
        }
        Ok(changes)
    }

    /// Returns whether this replica's row was valid on this server when a poll was sent. The row may be
    /// on another server, or the process may have been paused between the renewal and the poll.
    fn is_registered(&self, epoch: &Epoch, sent: BootInstant) -> bool {
        self.renewed.as_ref().is_some_and(|(renewed, server)| {
            server.as_ref() == Some(epoch) && sent.since(*renewed) < LEASE / 2
        })
    }

    /// Renews, before it is due, the row that says how old this replica's responses may be. Returns
    /// whether the row exists: if so, every later change takes it into account in its `effective_time`.
    async fn renew(&mut self, connection: &mut Connection) -> Result<bool, StoreError> {
        if !self.config.registration.is_confirmed() {
            self.renewed = None;
            return Ok(false);
        }
        let now = BootInstant::now();
        if self.renewed.as_ref().is_none_or(|(renewed, _)| now.since(*renewed) >= RENEWAL_INTERVAL) {
            let Registration { replica, bound, .. } = *self.config.registration;
            let renewed = connection.renew_replica(replica, bound, POLL_DEADLINE).await?;
            // The moment before the renewal was sent: the row is valid at least from then on.
            self.renewed = renewed.map(|epoch| (now, epoch));
            if self.renewed.is_none() {
                self.config.registration.lost();
            }
        }
        Ok(self.renewed.is_some())
    }
}
