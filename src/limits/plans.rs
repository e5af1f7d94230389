//! The plans that this replica has read, each until a lease shows that the database has another revision of it.
//! Filled by the lessor. Knows no token and no share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokend_core::limits::Rate;

use crate::clock::BootInstant;
use crate::domain::{LimitKind, LimitSubject, OutageBehavior};
use crate::store::{LoadedPlan, PlanKey};

/// The number of plans beyond which unused ones are removed.
const MAX_UNUSED: usize = 1_000;

/// How long a plan stays at least that no token uses.
const UNUSED: Duration = Duration::from_secs(10);

/// A plan as it was read.
#[derive(Debug)]
pub(super) struct CachedPlan {
    pub(super) plan_id: uuid::Uuid,
    pub(super) name: Box<str>,
    pub(super) limits: Box<[CachedLimit]>,
    /// The positions in the order in which they are spent: rates first, since what is taken of them may be lost.
    pub(super) order: Box<[usize]>,
    /// When it was read.
    pub(super) read: BootInstant,
    revision: i64,
    outdated: AtomicBool,
}

/// One of its limits.
#[derive(Debug)]
pub(super) struct CachedLimit {
    pub(super) name: Arc<str>,
    pub(super) per: LimitSubject,
    pub(super) counts: Counts,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Rate { rate: Rate, on_outage: OutageBehavior },
    Credits,
}

impl CachedPlan {
    /// Converts a plan of the database; `None`: it has a rate that no plan can have.
    pub(super) fn new(key: &PlanKey, plan: &LoadedPlan, read: BootInstant) -> Option<Self> {
        let limits = plan.limits.iter().map(|limit| {
            let counts = match limit.kind {
                LimitKind::Rate { requests, period, burst, on_outage } => {
                    let period = i64::try_from(period.whole_nanoseconds()).ok()?;
                    Counts::Rate { rate: Rate::new(requests, period, burst)?, on_outage }
                }
                _ => Counts::Credits,
            };
            Some(CachedLimit { name: limit.name.as_str().into(), per: limit.per, counts })
        });
        let limits: Box<[_]> = limits.collect::<Option<_>>()?;
        let mut order: Box<[usize]> = (0..limits.len()).collect();
        order.sort_by_key(|at| limits.get(*at).is_some_and(|limit| limit.counts == Counts::Credits));
        let (plan_id, revision) = (plan.plan_id, plan.revision);
        Some(Self {
            plan_id,
            name: key.name.clone(),
            limits,
            order,
            read,
            revision,
            outdated: AtomicBool::new(false),
        })
    }

    /// Returns whether it is this revision.
    pub(super) fn is_of(&self, revision: i64) -> bool {
        revision == self.revision
    }

    /// Has it read again before the next use.
    pub(super) fn outdate(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(super) fn rate(self) -> Option<Rate> {
        match self {
            Self::Rate { rate, .. } => Some(rate),
            Self::Credits => None,
        }
    }

    /// Returns the rate, if it is admitted while the database cannot be asked.
    pub(super) fn admitted_in_outage(self) -> Option<Rate> {
        match self {
            Self::Rate { rate, on_outage: OutageBehavior::Admit } => Some(rate),
            _ => None,
        }
    }

    /// Returns whether this is more than a rate ever has at once.
    pub(super) fn never_fits(self, cost: u32) -> bool {
        self.rate().is_some_and(|rate| i64::from(cost) > rate.burst())
    }

    /// Returns how long an empty rate takes to be full.
    pub(super) fn window(self) -> Option<Duration> {
        self.rate().map(|rate| Duration::from_nanos(rate.refill_time().unsigned_abs()))
    }
}

/// The plans by their names.
#[derive(Debug, Default)]
pub(super) struct Plans(RwLock<HashMap<PlanKey, Arc<CachedPlan>>>);

impl Plans {
    /// Returns a plan that was read and is not outdated.
    pub(super) fn get(&self, key: &PlanKey) -> Option<Arc<CachedPlan>> {
        let plans = self.0.read().unwrap_or_else(PoisonError::into_inner);
        plans.get(key).filter(|plan| !plan.is_outdated()).map(Arc::clone)
    }

    /// Stores what was read of a plan; `None`: there is no such plan.
    pub(super) fn put(&self, key: PlanKey, plan: Option<Arc<CachedPlan>>) {
        let mut plans = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = match plan {
            Some(plan) => plans.insert(key, plan),
            None => plans.remove(&key),
        };
        if let Some(before) = before {
            before.outdate();
        }
    }

    /// Removes plans that no token uses, if they are many: in an outage they could not be read again. One that was
    /// just read may be about to be used.
    pub(super) fn unload(&self, now: BootInstant) {
        let mut plans = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if plans.len() > MAX_UNUSED {
            plans.retain(|_, plan| Arc::strong_count(plan) > 1 || now.since(plan.read) < UNUSED);
        }
    }
}
