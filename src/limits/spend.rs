//! Spends of all limits of a token or of none, from the shares of this replica; and says what is left. Called for each
//! Verify of a limited token. Asks nobody: what a share does not have is a need.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokend_core::limits::{Allowance, LeaseNumber, Rate};

use super::moment::Moment;
use super::plans::{CachedLimit, Counts};
use super::slot::{Answer, Left, Refusal, Slot};
use super::slots::TokenSlots;
use super::status::{LimitStatus, Spending, StatusKind};
use super::{Request, Shared, Spent};
use crate::clock::BootInstant;
use crate::domain::Verdict;

/// The result of looking at the shares.
#[derive(Debug)]
pub(super) enum Attempt {
    Done(Spent),
    /// A share does not suffice, and the database may have more.
    Need,
}

/// What was taken of the limits of one plan, by their positions.
type Taken = [Option<LeaseNumber>; crate::domain::MAX_LIMITS];

impl TokenSlots {
    /// Iterates over the limits that a request judges, in the order of the plan.
    pub(super) fn judged<'a>(
        &'a self,
        only: Option<&'a str>,
    ) -> impl Iterator<Item = (usize, &'a CachedLimit, &'a std::sync::Arc<Slot>)> + 'a {
        let all = self.plan.limits.iter().zip(&self.slots).enumerate();
        all.map(|(at, (limit, slot))| (at, limit, slot))
            .filter(move |(_, limit, _)| only.is_none_or(|only| *limit.name == *only))
    }

    /// Spends what the shares have.
    pub(super) fn attempt(&self, shared: &Shared, request: &Request<'_>, moment: Moment) -> Attempt {
        if self.judged(request.limit).next().is_none() {
            return self.unlimited(shared, request, moment);
        }
        if request.cost == 0 {
            return self.look(shared, request, moment);
        }
        let mut taken = Taken::default();
        let spent = self.plan.order.iter().all(|at| self.take(shared, *at, request, moment, &mut taken));
        if spent {
            return Attempt::Done(self.spent(Verdict::Valid, None, request, moment));
        }
        self.give_back(&taken, request.cost);
        self.refuse(shared, request, moment).map_or(Attempt::Need, Attempt::Done)
    }

    /// Answers a request that judges no limit. No lease shows then that the plan has changed, so it is read again.
    fn unlimited(&self, shared: &Shared, request: &Request<'_>, moment: Moment) -> Attempt {
        if moment.instant.since(self.plan.read) < shared.lease {
            return Attempt::Done(self.spent(Verdict::Valid, None, request, moment));
        }
        Attempt::Need
    }

    /// Answers a request that spends nothing.
    fn look(&self, shared: &Shared, request: &Request<'_>, moment: Moment) -> Attempt {
        let told = |(_, _, slot): (_, _, &std::sync::Arc<Slot>)| slot.tells(shared.lease, &moment);
        if self.judged(request.limit).all(told) {
            Attempt::Done(self.spent(Verdict::Valid, None, request, moment))
        } else {
            Attempt::Need
        }
    }

    /// Takes of the share of the limit at this position, unless it is not judged. Asks for more before it runs out.
    fn take(
        &self,
        shared: &Shared,
        at: usize,
        request: &Request<'_>,
        moment: Moment,
        taken: &mut Taken,
    ) -> bool {
        let (Some(limit), Some(slot)) = (self.plan.limits.get(at), self.slots.get(at)) else { return false };
        if request.limit.is_some_and(|only| *limit.name != *only) {
            return true;
        }
        let Some(share) = slot.share.take(request.cost, shared.lease, moment.instant, BootInstant::now)
        else {
            return false;
        };
        if let Some(taken) = taken.get_mut(at) {
            *taken = Some(share.number);
        }
        if share.left < slot.low.load(Ordering::Relaxed)
            && !slot.queued.load(Ordering::Relaxed)
            && !slot.in_flight.load(Ordering::Relaxed)
        {
            shared.queue.lease_ahead((slot, &self.plan, at));
        }
        true
    }

    /// Returns whether a request can be answered without the database: each limit has a share, or is a rate that its plan
    /// admits.
    pub(super) fn is_admitted(&self, shared: &Shared, request: &Request<'_>) -> bool {
        let now = BootInstant::now();
        self.judged(request.limit).all(|(_, limit, slot)| {
            limit.counts.admitted_in_outage().is_some()
                || request.cost > 0 && slot.has(request.cost, shared.lease, now)
        })
    }

    fn give_back(&self, taken: &Taken, cost: u32) {
        for (slot, number) in self.slots.iter().zip(taken) {
            if let Some(number) = number {
                slot.share.give_back(*number, cost);
            }
        }
    }

    /// Refuses if a limit has no room as far as the database has said lately.
    pub(super) fn refuse(&self, shared: &Shared, request: &Request<'_>, moment: Moment) -> Option<Spent> {
        let mut refused: Option<(Verdict, Option<Duration>)> = None;
        for (_, limit, slot) in self.judged(request.limit) {
            let refusal = slot.refusal(limit.counts, request.cost, shared.lease, &moment);
            let Some(Refusal { retry_after }) = refusal else { continue };
            refused = Some(match refused {
                None => (refused_by(limit.counts), retry_after),
                // All of them must have room.
                Some((verdict, before)) => {
                    (verdict, before.zip(retry_after).map(|(one, other)| one.max(other)))
                }
            });
        }
        let (verdict, retry_after) = refused?;
        Some(self.spent(verdict, retry_after, request, moment))
    }

    /// Returns an answer with the state of the judged limits.
    pub(super) fn spent(
        &self,
        verdict: Verdict,
        retry_after: Option<Duration>,
        request: &Request<'_>,
        moment: Moment,
    ) -> Spent {
        let limits = self.judged(request.limit).map(|(_, limit, slot)| status(limit, slot, moment)).collect();
        Spent { verdict, spending: Spending { limits, retry_after } }
    }
}

/// Returns the verdict of a limit that has no room.
pub(super) fn refused_by(counts: Counts) -> Verdict {
    match counts {
        Counts::Rate { .. } => Verdict::RateLimited,
        Counts::Credits => Verdict::CreditsExhausted,
    }
}

/// Returns what this replica can tell of a limit.
fn status(limit: &CachedLimit, slot: &Slot, moment: Moment) -> LimitStatus {
    let share = i64::from(slot.share.left());
    let answer = slot.answer.load();
    let (age, left) = match answer.as_deref() {
        Some(Answer { sent, left, .. }) => (moment.instant.since(*sent), Some(*left)),
        None => (Duration::ZERO, None),
    };
    let age_nanos = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    let in_time = |wait: Duration| moment.now.checked_add(time::Duration::try_from(wait).ok()?);
    let (remaining, reset_time) = match (limit.counts, left) {
        (Counts::Rate { rate, .. }, left) => {
            let debt = match left {
                Some(Left::Rate(debt)) => debt.saturating_sub(age_nanos).max(0),
                _ => 0,
            };
            let debt = debt.saturating_sub(share.saturating_mul(rate.interval())).max(0);
            let room = rate.refill_time().saturating_sub(debt).checked_div(rate.interval()).unwrap_or(0);
            let reset = (debt > 0).then(|| in_time(Duration::from_nanos(debt.unsigned_abs()))).flatten();
            (room.clamp(0, rate.burst()), reset)
        }
        (Counts::Credits, Some(Left::Credits(balance, refill))) => {
            let reset = refill.and_then(|refill| in_time(refill.saturating_sub(age)));
            (balance.saturating_add(share), reset)
        }
        (Counts::Credits, _) => (share, None),
    };
    LimitStatus {
        name: limit.name.clone(),
        kind: if limit.counts == Counts::Credits { StatusKind::Credits } else { StatusKind::Rate },
        limit: limit.counts.rate().map_or(0, Rate::burst),
        remaining,
        reset_time,
        admitted_in_outage: false,
        window: limit.counts.window(),
    }
}

/// Spends of limits while the database cannot be asked: from live shares, and from the whole rate by this machine's
/// clock where the plan admits that. `None`: the plan does not, so the answer is not known.
pub(super) fn in_outage(
    slots: &TokenSlots,
    shared: &Shared,
    request: &Request<'_>,
    moment: Moment,
) -> Option<Spent> {
    // One at a time: all limits or none.
    let _alone = shared.outages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut taken = Taken::default();
    let mut local: Vec<(usize, Allowance)> = Vec::new();
    let mut refusal: Option<(Verdict, Option<Duration>)> = None;
    // Whether the plan has such a limit now is not known.
    slots.judged(request.limit).next()?;
    for (at, limit, slot) in slots.judged(request.limit) {
        if request.cost > 0 && slots.take(shared, at, request, moment, &mut taken) {
            continue;
        }
        let Some(rate) = limit.counts.admitted_in_outage() else {
            slots.give_back(&taken, request.cost);
            return None;
        };
        let grant = rate.lease(0, slot.state().local, moment.instant.boot, None, request.cost.into(), 0);
        if grant.amount < i64::from(request.cost) {
            let wait = grant.retry_after.map(|wait| Duration::from_nanos(wait.unsigned_abs()));
            refusal = Some((Verdict::RateLimited, wait));
            break;
        }
        local.push((at, grant.allowance));
    }
    if let Some((verdict, retry_after)) = refusal {
        slots.give_back(&taken, request.cost);
        return Some(slots.spent(verdict, retry_after, request, moment));
    }
    let mut spent = slots.spent(Verdict::Valid, None, request, moment);
    for (at, allowance) in local {
        if let Some(slot) = slots.slots.get(at) {
            slot.state().local = Some(allowance);
        }
        let name = slots.plan.limits.get(at).map(|limit| &limit.name);
        if let Some(status) = spent.spending.limits.iter_mut().find(|status| Some(&status.name) == name) {
            status.admitted_in_outage = true;
        }
        if request.cost > 0 {
            shared.metrics.limits.admitted_in_outage();
        }
    }
    Some(spent)
}
