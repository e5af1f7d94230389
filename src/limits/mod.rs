//! Limits: what a Verify of a token with a plan spends, and what it says of the limits. Called by `verify`; its
//! types are read by the API. A replica leases shares of allowances from the database and spends them in memory, so that
//! no limit is exceeded over all replicas. Knows no gRPC and no SQL.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

mod grants;
mod lessor;
mod moment;
mod plans;
mod queue;
mod slot;
mod slots;
mod spend;
pub mod status;

pub use moment::Moment;
pub use slots::{family_subject, organization_subject, subject, user_subject};
pub use status::{LimitStatus, Spending, StatusKind};

use crate::admission::hash_pool::Overloaded;
use crate::changefeed::freshness::Freshness;
use crate::clock::BootInstant;
use crate::domain::{Record, Verdict};
use crate::metrics::{Metrics, Task};
use crate::runtime::deadline;
use crate::runtime::tasks::Tasks;
use crate::secret::TokenId;
use crate::store::{Connector, PlanKey, StoreError};
use lessor::Lessor;
use plans::Plans;
use queue::{Outcome, Queue};
use slots::{Slots, TokenSlots};
use spend::Attempt;

/// The longest lease of a share.
const LONGEST_LEASE: Duration = Duration::from_secs(1);

/// How long a call waits for one answer of the lessor.
const WAIT: Duration = Duration::from_secs(3);

/// What a Verify asks of the limits.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// How much is spent of each; 0 only asks.
    pub cost: u32,
    /// The only limit that is judged; `None`: all of them.
    pub limit: Option<&'a str>,
}

/// What the limits say of a valid token.
#[derive(Debug)]
pub struct Spent {
    /// Valid, if all of them had room; then it was spent.
    pub verdict: Verdict,
    /// The limits that were judged; none: the plan has no limit of the name that the request names.
    pub spending: Spending,
}

/// Why it is not known whether a limit has room. Nothing was spent.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The database could not answer.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// Too many requests wait.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The token names a plan that cannot be read.
    #[error("the token's plan cannot be read")]
    NoPlan,
}

/// What the calls and the lessor share.
#[derive(Debug)]
struct Shared {
    connector: Connector,
    freshness: Arc<Freshness>,
    feed: Arc<Notify>,
    metrics: Arc<Metrics>,
    plans: Plans,
    slots: Slots,
    queue: Queue,
    lease: Duration,
    /// Whether the last statement failed.
    in_outage: AtomicBool,
    /// Locked while something is spent that the database does not know of.
    outages: Mutex<()>,
    closing: AtomicBool,
    closed: Notify,
}

/// The limits of all tokens on this replica.
#[derive(Debug)]
pub struct Limits {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

impl Limits {
    /// Starts the lessor; it stops when this is dropped. `feed` is notified when its connection leads to another
    /// server than the feed's.
    pub(crate) fn start(
        connector: Connector,
        freshness: Arc<Freshness>,
        feed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lease = LONGEST_LEASE.min(freshness.bounds().max_staleness);
        let shared = Arc::new(Shared {
            connector,
            freshness,
            feed,
            metrics: Arc::clone(&metrics),
            plans: Plans::default(),
            slots: Slots::default(),
            queue: Queue::default(),
            lease,
            in_outage: AtomicBool::new(false),
            outages: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
        });
        let mut tasks = Tasks::new(metrics);
        let leasing = Arc::clone(&shared);
        tasks.keep(Task::Lessor, move || Lessor::new(Arc::clone(&leasing)).run());
        Self { shared, tasks }
    }

    /// Returns whether the lessor works.
    #[must_use]
    pub fn works(&self) -> bool {
        self.tasks.down() == 0
    }

    /// Spends for a valid token from the shares of this replica; `None`: the database has to be asked.
    #[must_use]
    pub fn try_spend(
        &self,
        id: TokenId,
        record: &Record,
        request: &Request<'_>,
        moment: Moment,
    ) -> Option<Spent> {
        match self.resolve(id, record)?.attempt(&self.shared, request, moment) {
            Attempt::Done(spent) => Some(spent),
            Attempt::Need => None,
        }
    }

    /// Waits for leases of what a request needs.
    ///
    /// # Errors
    /// [`LimitsError`]: there is none.
    pub async fn lease(
        &self,
        id: TokenId,
        record: &Record,
        request: &Request<'_>,
    ) -> Result<(), LimitsError> {
        let slots = self.plan(id, record).await?;
        if slots.judged(request.limit).next().is_none() {
            return self.read_plan(record).await;
        }
        let Some(waiting) = self.ask(&slots, request)? else { return Ok(()) };
        // While the database does not answer, only calls wait that cannot do without it.
        if self.shared.in_outage.load(Ordering::Relaxed) && slots.is_admitted(&self.shared, request) {
            return Err(Arc::new(StoreError::Starting).into());
        }
        Ok(wait(waiting).await?)
    }

    /// Spends while the database cannot be asked; `None`: the plan does not admit that, or the database answers others,
    /// and only this request had no time or no room to wait.
    #[must_use]
    pub fn spend_in_outage(
        &self,
        id: TokenId,
        record: &Record,
        request: &Request<'_>,
        moment: Moment,
    ) -> Option<Spent> {
        if !self.shared.in_outage.load(Ordering::Relaxed) {
            return None;
        }
        spend::in_outage(&*self.resolve(id, record)?, &self.shared, request, moment)
    }

    /// Refuses a request for which each lease was taken by others.
    ///
    /// # Errors
    /// [`LimitsError::Overloaded`]: the database has more.
    pub fn refuse(
        &self,
        id: TokenId,
        record: &Record,
        request: &Request<'_>,
        moment: Moment,
    ) -> Result<Spent, LimitsError> {
        let refused = self.resolve(id, record).and_then(|slots| slots.refuse(&self.shared, request, moment));
        refused.ok_or(LimitsError::Overloaded(Overloaded))
    }

    /// Asks for leases of what a request needs; `None`: it needs none.
    fn ask(
        &self,
        slots: &TokenSlots,
        request: &Request<'_>,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Overloaded> {
        let (now, lease) = (BootInstant::now(), self.shared.lease);
        let needs = slots.judged(request.limit).filter_map(|(at, limit, slot)| {
            // What never fits is not leased; only the answer is wanted.
            let cost = if limit.counts.never_fits(request.cost) { 0 } else { request.cost };
            let suffices = if cost == 0 { slot.is_current(lease, now) } else { slot.has(cost, lease, now) };
            (!suffices).then_some(((slot, &slots.plan, at), cost))
        });
        self.shared.queue.lease(needs)
    }

    /// Returns the slots of a token, if its plan was read.
    fn resolve(&self, id: TokenId, record: &Record) -> Option<Arc<TokenSlots>> {
        if let Some(slots) = self.shared.slots.get(id, record) {
            return Some(slots);
        }
        let plan = self.shared.plans.get(&plan_key(record)?)?;
        self.shared.slots.put(id, record, plan)
    }

    /// Returns the slots of a token; reads its plan if that was not read.
    async fn plan(&self, id: TokenId, record: &Record) -> Result<Arc<TokenSlots>, LimitsError> {
        if let Some(slots) = self.resolve(id, record) {
            return Ok(slots);
        }
        self.read_plan(record).await?;
        self.resolve(id, record).ok_or(LimitsError::NoPlan)
    }

    /// Waits until the plan of a token is read.
    async fn read_plan(&self, record: &Record) -> Result<(), LimitsError> {
        let key = plan_key(record).ok_or(LimitsError::NoPlan)?;
        Ok(wait(self.shared.queue.read_plan(key)?).await?)
    }

    /// Returns all leases, and leases no more.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.queue.arrived.notify_one();
        self.shared.closed.notified().await;
    }
}

fn plan_key(record: &Record) -> Option<PlanKey> {
    let organization = String::from_utf8_lossy(record.packed().organization_id()).into_owned();
    Some(PlanKey { organization_id: organization.into(), name: record.plan()?.into() })
}

async fn wait(waiting: oneshot::Receiver<Outcome>) -> Outcome {
    match tokio::time::timeout(deadline::at_most(WAIT), waiting).await {
        Ok(Ok(outcome)) => outcome,
        // The lessor is gone: it has panicked, or the server is stopping.
        Ok(Err(_)) => Err(Arc::new(StoreError::Starting)),
        Err(_) => Err(Arc::new(StoreError::DeadlineExceeded)),
    }
}
