//! One allowance on this replica: the share that it spends, what the last answer of the database said, and what has
//! to be returned. Spent by any number of calls without a lock; filled by the lessor alone.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokend_core::limits::{Allowance, Rate, Returned, Share};
use uuid::Uuid;

use super::moment::Moment;
use super::plans::Counts;
use crate::clock::BootInstant;
use crate::store::{AllowanceKey, Settlement};

/// The shortest time between two requests for a rate of which nothing is left: what refills meanwhile is leased at once.
const PACE: Duration = Duration::from_millis(10);

/// An allowance on this replica.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: AllowanceKey,
    pub(super) share: Share,
    /// What the database said last.
    pub(super) answer: ArcSwapOption<Answer>,
    /// More is leased once less than this is left.
    pub(super) low: AtomicU32,
    /// Whether it is in the queue, and how much calls there wait for. Written under the queue's lock.
    pub(super) queued: AtomicBool,
    /// Whether a statement that leases for it is under way: nothing more is leased ahead meanwhile.
    pub(super) in_flight: AtomicBool,
    pub(super) waiting: AtomicU64,
    /// The least that one of them needs.
    pub(super) least: AtomicU64,
    state: Mutex<State>,
}

/// What the lessor knows of a slot.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The lease in the share.
    pub(super) lease: Option<Lease>,
    /// What is left of an earlier lease of a rate, and the run of the server that granted it.
    pub(super) rest: Option<(Returned, u64)>,
    /// Whether the lessor looks after it.
    pub(super) live: bool,
    /// A rate in an outage, by this machine's clock.
    pub(super) local: Option<Allowance>,
}

/// A lease in the share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) sent: BootInstant,
    pub(super) amount: u32,
    /// In which time one request refills, in nanoseconds; 0 for credits.
    pub(super) interval: i64,
    pub(super) of: LeaseOf,
}

/// What was leased.
#[derive(Debug, Clone, Copy)]
pub(super) enum LeaseOf {
    /// As granted, in this run of the server.
    Rate(Allowance, u64),
    Credits(Uuid),
}

/// What the database said, when it was asked, and when it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sent: BootInstant,
    /// In microseconds, until it was received.
    pub(super) took: u32,
    /// Whether others may return what they leased.
    pub(super) shared: bool,
    pub(super) left: Left,
}

/// What is left in the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// How long until it is full, in nanoseconds.
    Rate(i64),
    /// The balance, and how long until it is refilled; `None`: never.
    Credits(i64, Option<Duration>),
}

/// What is left of a lease that ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rest {
    Rate(Returned, u64),
    Credits(Settlement),
}

/// Why a request is refused without asking the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// When it may succeed; `None`: never.
    pub(super) retry_after: Option<Duration>,
}

impl Slot {
    pub(super) fn new(key: AllowanceKey) -> Self {
        Self {
            key,
            share: Share::new(),
            answer: ArcSwapOption::empty(),
            low: AtomicU32::new(0),
            queued: AtomicBool::new(false),
            in_flight: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            state: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the share has this much, for now.
    pub(super) fn has(&self, cost: u32, longest: Duration, now: BootInstant) -> bool {
        self.share.left() >= cost && self.state().lease.is_some_and(|lease| now.since(lease.sent) < longest)
    }

    /// Returns whether the last answer is younger than a lease.
    pub(super) fn is_current(&self, lease: Duration, now: BootInstant) -> bool {
        self.answer.load().as_deref().is_some_and(|answer| now.since(answer.sent) < lease)
    }

    /// Returns whether the last answer is younger than a lease, or was asked for by this request.
    pub(super) fn tells(&self, lease: Duration, moment: &Moment) -> bool {
        self.is_current(lease, moment.instant)
            || self.answer.load().as_deref().is_some_and(|answer| answer.is_of(moment))
    }

    /// Returns a refusal if the last answer leaves no room for `cost`, even if the share was returned, and if it is younger
    /// than a lease or the answer to the very request.
    pub(super) fn refusal(
        &self,
        counts: Counts,
        cost: u32,
        lease: Duration,
        moment: &Moment,
    ) -> Option<Refusal> {
        let answer = self.answer.load();
        let answer = answer.as_deref()?;
        let age = moment.instant.since(answer.sent);
        let is_own = answer.is_of(moment);
        if age >= lease && !is_own {
            return None;
        }
        if counts.never_fits(cost) {
            return Some(Refusal { retry_after: None });
        }
        let missing = i64::from(cost.saturating_sub(self.share.left()));
        let refused = match (answer.left, counts) {
            (Left::Rate(debt), Counts::Rate { rate, .. }) => {
                let waiting = self.waiting.load(Ordering::Relaxed);
                let wait = rate_wait(rate, debt, missing, answer, waiting, moment, is_own);
                wait.map(|wait| Refusal { retry_after: Some(wait) })
            }
            (Left::Credits(balance, refill), Counts::Credits) if missing > balance => {
                // Refilled since: it is asked for again.
                let refilled = refill.is_some_and(|wait| wait <= age);
                (!refilled).then(|| Refusal { retry_after: refill.map(|wait| wait.saturating_sub(age)) })
            }
            // It fits, or the limit counts something else than when it was leased.
            _ => None,
        };
        refused.map(|Refusal { retry_after }| match retry_after {
            Some(wait) if answer.shared => Refusal { retry_after: Some(wait.min(lease)) },
            None if answer.shared => Refusal { retry_after: Some(lease) },
            _ => Refusal { retry_after },
        })
    }

    /// Empties the share and returns what was left. Called by the lessor alone.
    pub(super) fn empty(&self, now: BootInstant) -> Option<Rest> {
        self.low.store(0, Ordering::Relaxed);
        let lease = self.state().lease.take()?;
        lease.ended(self.share.replace(0, now), now)
    }

    /// Replaces the share and returns what was left. Called by the lessor alone.
    pub(super) fn fill(&self, lease: Lease) -> Option<Rest> {
        let last = self.state().lease.replace(lease);
        let left = self.share.replace(lease.amount, lease.sent);
        last.and_then(|last| last.ended(left, lease.sent))
    }

    /// Returns whether what was spent of it in an outage has not refilled yet.
    pub(super) fn owes_of_outage(&self, now: BootInstant) -> bool {
        self.state().local.is_some_and(|local| local.full_time > now.boot)
    }

    /// Returns whether its lease is no longer used: over, or half over with something left.
    pub(super) fn rests(&self, now: BootInstant, longest: Duration) -> bool {
        let state = self.state();
        state.lease.is_none_or(|lease| {
            let age = now.since(lease.sent);
            age >= longest
                || age >= longest / 2 && self.share.left() > 0 && !self.queued.load(Ordering::Relaxed)
        })
    }

    /// Returns how much was spent of the share, and in which time.
    pub(super) fn spent(&self, now: BootInstant) -> Option<(u32, Duration)> {
        let lease = self.state().lease?;
        Some((lease.amount.saturating_sub(self.share.left()), now.since(lease.sent)))
    }
}

impl Answer {
    /// Returns how long ago it was received.
    fn known_for(&self, moment: &Moment) -> Duration {
        moment.instant.since(self.sent).saturating_sub(Duration::from_micros(self.took.into()))
    }

    /// Returns whether it was asked for since this request has waited.
    fn is_of(&self, moment: &Moment) -> bool {
        moment.asked.is_some_and(|asked| asked.boot <= self.sent.boot)
    }
}

impl Lease {
    /// Returns what is to be returned, if it is worth anything: of a rate, what has refilled since does not count.
    pub(super) fn ended(self, left: u32, now: BootInstant) -> Option<Rest> {
        match self.of {
            LeaseOf::Rate(Allowance { lease_time, era, revision, .. }, run) => {
                let amount = i64::from(left);
                let refilled = i64::try_from(now.since(self.sent).as_nanos()).unwrap_or(i64::MAX);
                let returned = Returned { amount, lease_time, era, revision };
                (amount.saturating_mul(self.interval) > refilled).then_some(Rest::Rate(returned, run))
            }
            // Also when nothing is left: then the lease is over.
            LeaseOf::Credits(lease_id) => Some(Rest::Credits(Settlement { lease_id, rest: left.into() })),
        }
    }
}

/// Returns how long `missing` requests do not fit into a rate that was `debt` nanoseconds from full at the last answer;
/// `None`: they did then. What has refilled since is asked for by few calls, and seldom: the others are refused.
fn rate_wait(
    rate: Rate,
    debt: i64,
    missing: i64,
    answer: &Answer,
    waiting: u64,
    moment: &Moment,
    is_own: bool,
) -> Option<Duration> {
    let age = i64::try_from(moment.instant.since(answer.sent).as_nanos()).unwrap_or(i64::MAX);
    let interval = rate.interval();
    let short = missing.saturating_mul(interval).saturating_add(debt).saturating_sub(rate.refill_time());
    if short <= 0 {
        return None;
    }
    let wait = Duration::from_nanos(short.saturating_sub(age).max(0).unsigned_abs());
    let pace = PACE.min(Duration::from_nanos(rate.refill_time().unsigned_abs()) / 2);
    let wait = wait.max(pace.saturating_sub(answer.known_for(moment)));
    if !wait.is_zero() {
        return Some(wait);
    }
    let debt = debt.saturating_sub(age).max(0);
    let room = rate.refill_time().saturating_sub(debt).checked_div(interval).unwrap_or(0);
    let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
    (is_own || waiting.saturating_add(missing) > room).then_some(pace)
}
