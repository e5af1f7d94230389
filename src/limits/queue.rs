//! What calls wait for: slots that need a lease, and plans that have not been read. The lessor takes all of it at once,
//! so a call waits for a statement that was sent after it came.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::plans::CachedPlan;
use super::slot::Slot;
use crate::admission::hash_pool::Overloaded;
use crate::store::{PlanKey, StoreError};

/// The maximum numbers of slots and of calls that wait.
const MAX_ASKED: usize = 16_384;
const MAX_WAITERS: usize = 65_536;

pub(super) type Outcome = Result<(), Arc<StoreError>>;

/// One request to the database.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) slot: Arc<Slot>,
    pub(super) plan: Arc<CachedPlan>,
    pub(super) at: usize,
    /// How much calls wait for; 0: more is leased ahead, or only the answer is wanted.
    pub(super) waiting: u64,
    /// What the call needs that needs least of them.
    pub(super) least: u64,
}

/// What is done together.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) asks: Vec<Ask>,
    pub(super) plans: HashSet<PlanKey>,
    pub(super) waiters: Vec<oneshot::Sender<Outcome>>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next: Mutex<Round>,
    /// Notified when something comes.
    pub(super) arrived: Notify,
}

/// A slot that a call needs, of its plan's limit at this position.
pub(super) type Need<'a> = (&'a Arc<Slot>, &'a Arc<CachedPlan>, usize);

impl Queue {
    /// Waits for leases of these slots, each of at least so much; `None`: there are none.
    pub(super) fn lease<'a>(
        &self,
        needs: impl Iterator<Item = (Need<'a>, u32)>,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Overloaded> {
        let mut needs = needs.peekable();
        if needs.peek().is_none() {
            return Ok(None);
        }
        let mut next = self.lock();
        if next.asks.len() >= MAX_ASKED {
            return Err(Overloaded);
        }
        let receiver = next.wait()?;
        for (need, cost) in needs {
            next.ask(need, cost);
        }
        self.arrived.notify_one();
        Ok(Some(receiver))
    }

    /// Has more leased of a slot, without waiting for it.
    pub(super) fn lease_ahead(&self, need: Need<'_>) {
        let mut next = self.lock();
        if next.asks.len() < MAX_ASKED {
            next.ask(need, 0);
            self.arrived.notify_one();
        }
    }

    /// Waits for a plan.
    pub(super) fn read_plan(&self, key: PlanKey) -> Result<oneshot::Receiver<Outcome>, Overloaded> {
        let mut next = self.lock();
        let receiver = next.wait()?;
        next.plans.insert(key);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Takes everything; what is taken can no longer be joined.
    pub(super) fn take(&self) -> Round {
        let mut next = self.lock();
        let mut round = std::mem::take(&mut *next);
        for ask in &mut round.asks {
            // Under the lock: a call that comes later queues the slot again.
            ask.slot.queued.store(false, Ordering::Relaxed);
            ask.slot.in_flight.store(true, Ordering::Relaxed);
            ask.waiting = ask.slot.waiting.swap(0, Ordering::Relaxed);
            ask.least = ask.slot.least.swap(u64::MAX, Ordering::Relaxed);
        }
        round
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    pub(super) fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.plans.is_empty() && self.waiters.is_empty()
    }

    fn wait(&mut self) -> Result<oneshot::Receiver<Outcome>, Overloaded> {
        if self.waiters.len() >= MAX_WAITERS {
            return Err(Overloaded);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push(sender);
        Ok(receiver)
    }

    fn ask(&mut self, (slot, plan, at): Need<'_>, cost: u32) {
        if cost > 0 {
            slot.waiting.fetch_add(cost.into(), Ordering::Relaxed);
            slot.least.fetch_min(cost.into(), Ordering::Relaxed);
        }
        if !slot.queued.swap(true, Ordering::Relaxed) {
            self.asks.push(Ask { slot: Arc::clone(slot), plan: Arc::clone(plan), at, waiting: 0, least: 0 });
        }
    }
}
