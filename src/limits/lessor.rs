//! Leases shares for all slots that need one, in one statement for rates and one for credits, on a connection of its
//! own; returns what is left of shares that rest. No statement is repeated: what it did is not certain then. Called
//! through the queue; knows no token.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::grants::{credit_ask, fill_credits, fill_rate, rate_ask};
use super::plans::CachedPlan;
use super::queue::{Ask, Outcome, Round};
use super::slot::{Rest, Slot};
use crate::clock::BootInstant;
use crate::store::{Connection, CreditAsk, Epoch, PlanKey, RateAsk, Settlement, StoreError};

/// The longest time of a statement: longer than a lease, it would grant nothing.
const QUERY_DEADLINE: Duration = Duration::from_secs(1);

/// How long a failure is the answer to everything that comes.
const BACKOFF: Duration = Duration::from_millis(100);

/// How long after a failure leases are returned again while no call comes.
const RETURN_AGAIN: Duration = Duration::from_secs(1);

/// How often shares that rest are looked for, and slots that nobody uses.
const LOOK: Duration = Duration::from_millis(100);
const UNLOAD: Duration = Duration::from_secs(2);

/// The maximum number of rows of one statement.
const MAX_ROWS: usize = 1_000;

/// The maximum number of settlements that wait for the database.
const MAX_SETTLEMENTS: usize = 100_000;

/// The worker and its connection.
pub(super) struct Lessor {
    shared: Arc<Shared>,
    /// A connection, and the count of doubts when it was opened.
    connection: Option<(Connection, u64)>,
    failed: Option<(Instant, Arc<StoreError>)>,
    /// The server that is leased from, and the number of its run: what an earlier one granted is void.
    epoch: Option<Epoch>,
    run: u64,
    /// The slots with a lease.
    live: Vec<Arc<Slot>>,
    settlements: Vec<Settlement>,
    /// Slots with a rest that is worth a return.
    returns: Vec<Arc<Slot>>,
    looked: Instant,
    unloaded: Instant,
}

impl Lessor {
    /// Creates a worker that has no connection yet. After a panic it takes over the slots of the last one.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let live = shared.slots.leased();
        for slot in &live {
            slot.state().live = true;
        }
        let now = Instant::now();
        Self {
            shared,
            connection: None,
            failed: None,
            epoch: None,
            run: 0,
            live,
            settlements: Vec::new(),
            returns: Vec::new(),
            looked: now,
            unloaded: now,
        }
    }

    /// Runs until the limits are closed, and returns everything then.
    pub(super) async fn run(mut self) {
        while !self.shared.is_closing() {
            // Calls that are about to queue something do so first, and join the same statement.
            tokio::task::yield_now().await;
            self.look();
            let round = self.shared.queue.take();
            if round.is_empty() && !self.has_returns() {
                let rest = if self.live.is_empty() { UNLOAD } else { LOOK };
                let _ = tokio::time::timeout(rest, self.shared.queue.arrived.notified()).await;
                continue;
            }
            self.serve(round).await;
        }
        let now = BootInstant::now();
        for slot in std::mem::take(&mut self.live) {
            self.end(&slot, now);
        }
        self.failed = None;
        self.serve(self.shared.queue.take()).await;
        self.shared.closed.notify_one();
    }

    /// Returns whether something is to be returned now: after a failure only after a while.
    fn has_returns(&self) -> bool {
        let may_try = self.failed.as_ref().is_none_or(|(at, _)| at.elapsed() > RETURN_AGAIN);
        may_try && !(self.returns.is_empty() && self.settlements.is_empty())
    }

    /// Answers everything of a round.
    async fn serve(&mut self, round: Round) {
        let Round { asks, plans, waiters } = round;
        let slots: Vec<_> = asks.iter().map(|ask| Arc::clone(&ask.slot)).collect();
        let outcome: Outcome = match &self.failed {
            Some((at, error)) if at.elapsed() < BACKOFF => Err(Arc::clone(error)),
            _ => self.attempt(asks, plans).await.map_err(Arc::new),
        };
        for slot in slots {
            slot.in_flight.store(false, Ordering::Relaxed);
        }
        self.note(&outcome);
        self.failed = outcome.as_ref().err().map(|error| match self.failed.take() {
            Some((at, last)) if Arc::ptr_eq(&last, error) => (at, last),
            _ => (Instant::now(), Arc::clone(error)),
        });
        for waiter in waiters {
            // A caller that has gone away misses nothing.
            let _ = waiter.send(outcome.clone());
        }
    }

    /// Notes whether the database answers, and logs when that changes.
    fn note(&self, outcome: &Outcome) {
        let was_in_outage = self.shared.in_outage.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_in_outage => {
                let error = &**error as &dyn std::error::Error;
                tracing::warn!(error, "limits cannot be leased; trying again");
            }
            Ok(()) if was_in_outage => tracing::info!("limits are leased again"),
            _ => {}
        }
    }

    /// Reads plans, then leases. A connection that fails is not used again.
    async fn attempt(&mut self, asks: Vec<Ask>, plans: HashSet<PlanKey>) -> Result<(), StoreError> {
        let epoch = self.shared.freshness.epoch().ok_or(StoreError::Starting)?;
        self.follow(&epoch);
        let doubts = self.shared.connector.doubts();
        let mut connection = match self.connection.take().filter(|(_, opened)| *opened == doubts) {
            Some((connection, _)) => connection,
            None => self.shared.connector.open_for_records().await?,
        };
        let done = async {
            if !plans.is_empty() {
                let read = BootInstant::now();
                let mut loaded = connection.load_plans(plans.iter(), QUERY_DEADLINE).await?;
                for key in plans {
                    let plan =
                        loaded.remove(&key).and_then(|plan| CachedPlan::new(&key, &plan, read)).map(Arc::new);
                    self.shared.plans.put(key, plan);
                }
            }
            self.lease(&mut connection, asks, &epoch).await
        };
        let done = done.await.inspect_err(|error| match error {
            StoreError::OtherServer => self.shared.feed.notify_one(),
            StoreError::DeadlineExceeded => self.shared.connector.doubt(),
            _ => {}
        });
        if done.is_ok() {
            self.connection = Some((connection, doubts));
        }
        self.shared.metrics.limits.round(done.is_ok());
        done
    }

    /// Voids all shares when another server is leased from.
    fn follow(&mut self, epoch: &Epoch) {
        if self.epoch.as_ref() == Some(epoch) {
            return;
        }
        self.run = self.run.wrapping_add(1);
        self.epoch = Some(epoch.clone());
        let now = BootInstant::now();
        for slot in std::mem::take(&mut self.live) {
            // A lease of credits is settled by its id, on the server that has it; a rest of a rate is void.
            self.end(&slot, now);
        }
    }

    async fn lease(
        &mut self,
        connection: &mut Connection,
        asks: Vec<Ask>,
        epoch: &Epoch,
    ) -> Result<(), StoreError> {
        let (rates, credits): (Vec<_>, Vec<_>) = asks
            .into_iter()
            .partition(|ask| ask.plan.limits.get(ask.at).is_some_and(|limit| limit.counts.rate().is_some()));
        let mut rates = rates.into_iter();
        loop {
            let asks: Vec<Ask> = rates.by_ref().take(MAX_ROWS).collect();
            let returns: Vec<_> =
                self.returns.drain(..self.returns.len().min(MAX_ROWS - asks.len())).collect();
            if asks.is_empty() && returns.is_empty() {
                break;
            }
            self.lease_rates(connection, asks, returns, epoch).await?;
        }
        let mut credits = credits.into_iter();
        loop {
            let asks: Vec<Ask> = credits.by_ref().take(MAX_ROWS).collect();
            if asks.is_empty() && self.settlements.is_empty() {
                return Ok(());
            }
            self.debit_credits(connection, asks, epoch).await?;
        }
    }

    async fn lease_rates(
        &mut self,
        connection: &mut Connection,
        asks: Vec<Ask>,
        returns: Vec<Arc<Slot>>,
        epoch: &Epoch,
    ) -> Result<(), StoreError> {
        let now = BootInstant::now();
        let mut rows: Vec<RateAsk> = asks.iter().map(|ask| rate_ask(ask, self.run, now)).collect();
        // One row for each key: a slot that is asked for takes its rest along.
        for slot in returns {
            if let Some((returned, run)) = slot.state().rest.take()
                && run == self.run
            {
                rows.push(RateAsk { key: slot.key.clone(), wanted: 0, least: 0, returned: Some(returned) });
            }
        }
        let sent = BootInstant::now();
        let answers = connection.lease_rates(&rows, epoch, QUERY_DEADLINE).await?;
        self.shared.metrics.limits.leased(rows.len());
        for (ask, answer) in asks.iter().zip(answers) {
            let ended = fill_rate(ask, answer, sent, self.run);
            self.keep(&ask.slot, ended);
        }
        Ok(())
    }

    async fn debit_credits(
        &mut self,
        connection: &mut Connection,
        asks: Vec<Ask>,
        epoch: &Epoch,
    ) -> Result<(), StoreError> {
        let now = BootInstant::now();
        let rows: Vec<CreditAsk> = asks
            .iter()
            .map(|ask| {
                let row = credit_ask(ask, now);
                let ended = if ask.waiting > 0 { ask.slot.empty(now) } else { None };
                self.keep(&ask.slot, ended);
                row
            })
            .collect();
        let settled: Vec<_> = self.settlements.drain(..self.settlements.len().min(MAX_ROWS)).collect();
        let sent = BootInstant::now();
        let answers = connection.debit_credits(&rows, &settled, epoch, QUERY_DEADLINE).await;
        let answers = answers.inspect_err(|_| {
            // What was debited without an answer was not spent. A lease that does not exist is not settled.
            let unanswered =
                rows.iter().map(|row| Settlement { lease_id: row.lease_id, rest: i64::from(u32::MAX) });
            self.settlements.extend(settled.iter().copied().chain(unanswered));
            self.settlements.truncate(MAX_SETTLEMENTS);
        })?;
        self.shared.metrics.limits.leased(rows.len());
        for ((ask, row), answer) in asks.iter().zip(&rows).zip(answers) {
            let ended = fill_credits(ask, row, answer, sent);
            self.keep(&ask.slot, ended);
        }
        Ok(())
    }

    /// Keeps what is left of a lease until it can be returned, and looks after the slot while it has a lease.
    fn keep(&mut self, slot: &Arc<Slot>, ended: Option<Rest>) {
        let mut state = slot.state();
        match ended {
            Some(Rest::Rate(returned, run)) => {
                state.rest = Some((returned, run));
                // Nobody looks after it: it is returned by the next statement.
                if !state.live && state.lease.is_none() {
                    self.returns.push(Arc::clone(slot));
                }
            }
            Some(Rest::Credits(settlement)) => self.settlements.push(settlement),
            None => {}
        }
        if state.lease.is_some() && !std::mem::replace(&mut state.live, true) {
            self.live.push(Arc::clone(slot));
        }
    }

    /// Ends the lease of a slot that is no longer looked after.
    fn end(&mut self, slot: &Arc<Slot>, now: BootInstant) {
        let ended = slot.empty(now);
        self.keep(slot, ended);
        let mut state = slot.state();
        state.live = false;
        if state.rest.is_some() {
            self.returns.push(Arc::clone(slot));
        }
    }

    /// Ends leases that rest, so that others can use what is left, and unloads what nobody uses.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let (now, lease) = (BootInstant::now(), self.shared.lease);
        for slot in std::mem::take(&mut self.live) {
            if slot.rests(now, lease) {
                self.end(&slot, now);
            } else {
                self.live.push(slot);
            }
        }
        // In an outage nothing could be loaded again, and what was spent without the database would be forgotten.
        if self.unloaded.elapsed() >= UNLOAD && !self.shared.in_outage.load(Ordering::Relaxed) {
            self.unloaded = Instant::now();
            self.shared.slots.unload(lease, now);
            self.shared.plans.unload(now);
            self.shared.metrics.limits.loaded(self.shared.slots.len());
        }
    }
}
