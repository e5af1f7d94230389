//! Who waits for which record: what the loader and its workers share. A caller joins only a query that has not been
//! sent, so that what it gets was read after it asked.

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

/// The most ids that one query asks for, and how many of them may be callers' own credentials: a flood of
/// made-up bearers leaves three quarters to everyone else.
const BATCH: usize = 256;
const CREDENTIALS_PER_BATCH: usize = BATCH / 4;

/// How many queries may be under way, each on a line of its own.
pub(super) const WORKERS: usize = 4;

/// The most ids that may wait, in each lane, and the most callers for one of them.
const QUEUE: usize = 8_192;
const WAITERS_PER_ID: usize = 4_096;

/// How long a read may have to wait for its turn, as far as can be told; whoever would wait longer is refused
/// at once, so that those who are served are still there.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Whose record is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// That of a caller's own credential.
    Credential,
    /// That of a secret to be verified.
    Secret,
}

/// What a read found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The record, if there is one.
    pub(super) record: Option<Record>,
    /// The database's time that it is at least as new as.
    pub(super) as_of: OffsetDateTime,
    /// When the read was sent.
    pub(super) read: BootInstant,
}

pub(super) type Outcome = Result<Found, Arc<StoreError>>;
pub(super) type Waiters = Vec<oneshot::Sender<Outcome>>;

/// What the workers and those who ask share.
#[derive(Debug)]
pub(super) struct ReadQueue {
    pub(super) lines: Connector,
    pub(super) cache: Arc<Cache>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) keyring: Arc<CurrentKeyring>,
    pub(super) feed: Arc<Notify>,
    pub(super) metrics: Arc<Metrics>,
    /// How long a query takes of late, in microseconds.
    pace: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Notified when somebody asks.
    pub(super) arrived: Notify,
    /// How many workers have failed of late.
    pub(super) failing: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    credentials: VecDeque<TokenId>,
    secrets: VecDeque<TokenId>,
    /// By lane too: whoever floods one with made-up credentials holds up nobody in the other.
    waiters: HashMap<(Lane, TokenId), Waiters, DefaultHashBuilder>,
}

impl ReadQueue {
    /// Makes a queue in which nobody waits.
    pub(super) fn new(
        lines: Connector,
        cache: Arc<Cache>,
        freshness: Arc<Freshness>,
        keyring: Arc<CurrentKeyring>,
        feed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            lines,
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

    /// Returns how many records wait to be asked for.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = self.lock();
        (waiting.credentials.len() + waiting.secrets.len()) as u64
    }

    /// Has a record read by a query that is sent after this call.
    pub(super) fn ask(&self, id: TokenId, lane: Lane) -> Result<oneshot::Receiver<Outcome>, Overloaded> {
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
        let batch = if lane == Lane::Credential { CREDENTIALS_PER_BATCH } else { BATCH };
        if queue.len() >= QUEUE || self.wait(queue.len(), batch) > MAX_WAIT {
            return Err(Overloaded);
        }
        queue.push_back(id);
        waiting.waiters.insert((lane, id), vec![sender]);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Estimates how long a read behind so many others waits until it is sent.
    fn wait(&self, ahead: usize, batch: usize) -> Duration {
        let rounds = (ahead / batch).div_ceil(WORKERS) as u64;
        Duration::from_micros(self.pace.load(Ordering::Relaxed).saturating_mul(rounds))
    }

    /// Learns how long a query took: an average in which the last eight or so count.
    pub(super) fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.pace.load(Ordering::Relaxed);
        // Workers may overwrite each other's: it is an estimate.
        self.pace.store(before.saturating_mul(7).saturating_add(took) / 8, Ordering::Relaxed);
    }

    /// Takes the next batch off the queue; what is taken can no longer be joined.
    pub(super) fn take(&self) -> Vec<(TokenId, Waiters)> {
        let mut waiting = self.lock();
        let credentials = waiting.credentials.len().min(CREDENTIALS_PER_BATCH);
        let secrets = waiting.secrets.len().min(BATCH - credentials);
        let waiting = &mut *waiting;
        let credentials = waiting.credentials.drain(..credentials).map(|id| (Lane::Credential, id));
        let secrets = waiting.secrets.drain(..secrets).map(|id| (Lane::Secret, id));
        let mut batch = Vec::with_capacity(BATCH);
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
