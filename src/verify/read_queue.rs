//! The queue of reads shared by the loader and its workers. A caller joins only a query that has not
//! been sent, so that its record was read after the request.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};

use super::cache::Cache;
use crate::admission::hash_pool::Overloaded;
use crate::changefeed::freshness::Freshness;
use crate::clock::BootInstant;
use crate::domain::Record;
use crate::metrics::Metrics;
use crate::secret::{CurrentKeyring, TokenId};
use crate::store::{Connector, StoreError};

/// The maximum number of ids per query, and how many of them may be callers' own credentials: a flood
/// of invented credentials leaves three quarters to everyone else.
const MAX_BATCH: usize = 256;
const CREDENTIALS_PER_BATCH: usize = MAX_BATCH / 4;

/// How many queries may run at once, each on its own connection.
pub(super) const WORKERS: usize = 4;

/// The maximum number of queued ids per lane, and of waiting callers per id.
const MAX_QUEUED: usize = 8_192;
const WAITERS_PER_ID: usize = 4_096;

/// The longest estimated wait of a read in the queue; a read that would wait longer is rejected at
/// once, so that callers are still there when they are served.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The purpose of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// The caller's own credential.
    Credential,
    /// A secret to be verified.
    Secret,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The record, if there is one.
    pub(super) record: Option<Record>,
    /// A database time; the record is at least as new as this.
    pub(super) as_of: OffsetDateTime,
    /// When the read was sent.
    pub(super) read: BootInstant,
}

pub(super) type Outcome = Result<Found, Arc<StoreError>>;
pub(super) type Waiters = Vec<oneshot::Sender<Outcome>>;

/// The state shared by the workers and the callers.
#[derive(Debug)]
pub(super) struct ReadQueue {
    pub(super) connector: Connector,
    pub(super) cache: Arc<Cache>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) keyring: Arc<CurrentKeyring>,
    pub(super) feed: Arc<Notify>,
    pub(super) metrics: Arc<Metrics>,
    /// The recent average duration of a query, in microseconds.
    pace: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Notified when a read is queued.
    pub(super) arrived: Notify,
    /// How many workers have failed recently.
    pub(super) failing: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    credentials: VecDeque<TokenId>,
    secrets: VecDeque<TokenId>,
    /// Keyed by lane too: a flood of invented credentials in one lane delays nobody in the other.
    waiters: HashMap<(Lane, TokenId), Waiters, DefaultHashBuilder>,
}

impl ReadQueue {
    /// Creates an empty queue.
    pub(super) fn new(
        connector: Connector,
        cache: Arc<Cache>,
        freshness: Arc<Freshness>,
        keyring: Arc<CurrentKeyring>,
        feed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connector,
            cache,
            freshness,
            keyring,
            feed,
            metrics,
            pace: AtomicU64::new(0),
            waiting: Mutex::default(),
            arrived: Notify::new(),
            failing: AtomicUsize::new(0),
        }
    }

    /// Returns how many records are queued.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = self.lock();
        (waiting.credentials.len() + waiting.secrets.len()) as u64
    }

    /// Queues a record for a query that is sent after this call.
    pub(super) fn enqueue(&self, id: TokenId, lane: Lane) -> Result<oneshot::Receiver<Outcome>, Overloaded> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        if let Some(waiters) = waiting.waiters.get_mut(&(lane, id)) {
            if waiters.len() >= WAITERS_PER_ID {
                return Err(Overloaded);
            }
            waiters.push(sender);
            return Ok(receiver);
        }
        let queue = match lane {
            Lane::Credential => &mut waiting.credentials,
            Lane::Secret => &mut waiting.secrets,
        };
        let batch = if lane == Lane::Credential { CREDENTIALS_PER_BATCH } else { MAX_BATCH };
        if queue.len() >= MAX_QUEUED || self.wait(queue.len(), batch) > MAX_WAIT {
            return Err(Overloaded);
        }
        queue.push_back(id);
        waiting.waiters.insert((lane, id), vec![sender]);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Estimates how long a read waits with that many reads ahead of it.
    fn wait(&self, ahead: usize, batch: usize) -> Duration {
        let rounds = (ahead / batch).div_ceil(WORKERS) as u64;
        Duration::from_micros(self.pace.load(Ordering::Relaxed).saturating_mul(rounds))
    }

    /// Records how long a query took: a moving average over about the last eight.
    pub(super) fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.pace.load(Ordering::Relaxed);
        // Workers may overwrite each other's value: it is an estimate.
        self.pace.store(before.saturating_mul(7).saturating_add(took) / 8, Ordering::Relaxed);
    }

    /// Takes the next batch off the queue; what is taken can no longer be joined.
    pub(super) fn take(&self) -> Vec<(TokenId, Waiters)> {
        let mut waiting = self.lock();
        let credentials = waiting.credentials.len().min(CREDENTIALS_PER_BATCH);
        let secrets = waiting.secrets.len().min(MAX_BATCH - credentials);
        let waiting = &mut *waiting;
        let credentials = waiting.credentials.drain(..credentials).map(|id| (Lane::Credential, id));
        let secrets = waiting.secrets.drain(..secrets).map(|id| (Lane::Secret, id));
        let mut batch = Vec::with_capacity(MAX_BATCH);
        for (lane, id) in credentials.chain(secrets) {
            let mut waiters = waiting.waiters.remove(&(lane, id)).unwrap_or_default();
            waiters.retain(|waiter| !waiter.is_closed());
            if !waiters.is_empty() {
                batch.push((id, waiters));
            }
        }
        if !(waiting.credentials.is_empty() && waiting.secrets.is_empty()) {
            self.arrived.notify_one();
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
