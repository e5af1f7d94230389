//! How much is asked of an allowance, and what an answer does to its slot. Called by the lessor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokend_core::limits::Rate;

use super::plans::Counts;
use super::queue::Ask;
use super::slot::{Answer, Lease, LeaseOf, Left, Rest};
use crate::clock::{self, BootInstant};
use crate::store::{CreditAsk, CreditLease, Leased, RateAsk, RateLease};

/// For how long a share is meant to suffice: less than half a lease, after which what is left of it is returned.
const AHEAD: Duration = Duration::from_millis(400);

/// By how much a share may be larger than what was spent of the last.
const GROWTH: u32 = 4;

/// A part of what there is at most, for a share that nobody waits for yet.
const PART: i64 = 8;

/// How long others may hold a lease that is not returned yet, in nanoseconds.
const LEASE_NANOS: i64 = 1_000_000_000;

/// Returns what to lease of a rate. What is left of the share is returned by the same statement if calls wait: they need
/// more than the share has.
pub(super) fn rate_ask(ask: &Ask, run: u64, now: BootInstant) -> RateAsk {
    let burst = counts(ask).and_then(Counts::rate).map_or(0, Rate::burst);
    let (wanted, least) = wanted(ask, burst / PART, now);
    let rest = match (ask.waiting > 0).then(|| ask.slot.empty(now)).flatten() {
        Some(Rest::Rate(returned, run)) => Some((returned, run)),
        _ => ask.slot.state().rest.take(),
    };
    let returned = rest.filter(|(_, granted)| *granted == run).map(|(returned, _)| returned);
    RateAsk { key: ask.slot.key.clone(), wanted, least, returned }
}

/// Returns what to debit.
pub(super) fn credit_ask(ask: &Ask, now: BootInstant) -> CreditAsk {
    let balance = match ask.slot.answer.load().as_deref() {
        Some(Answer { left: Left::Credits(balance, _), .. }) => *balance,
        _ => 0,
    };
    let (wanted, least) = wanted(ask, balance / PART, now);
    CreditAsk { key: ask.slot.key.clone(), wanted, least, lease_id: clock::random_uuid() }
}

fn counts(ask: &Ask) -> Option<Counts> {
    ask.plan.limits.get(ask.at).map(|limit| limit.counts)
}

/// Returns what calls wait for, with what will be spent soon if it goes on as since the last lease; and with how little
/// one of them can do something.
fn wanted(ask: &Ask, most_ahead: i64, now: BootInstant) -> (i64, i64) {
    let ahead = ask.slot.spent(now).map_or(0, |(spent, time)| {
        let growth = u64::from(spent.saturating_mul(GROWTH));
        let soon = u128::from(spent).saturating_mul(AHEAD.as_nanos()).checked_div(time.as_nanos().max(1));
        soon.and_then(|soon| u64::try_from(soon).ok()).unwrap_or(u64::MAX).min(growth)
    });
    let ahead = i64::try_from(ahead).unwrap_or(i64::MAX).min(most_ahead);
    let waiting = i64::try_from(ask.waiting).unwrap_or(i64::MAX);
    let least = if ask.waiting == 0 { 0 } else { i64::try_from(ask.least).unwrap_or(i64::MAX) };
    (waiting.saturating_add(ahead).min(u32::MAX.into()), least)
}

/// Fills a slot with a rate's lease; returns what is left of the last one, or the lease itself if the plan has changed.
pub(super) fn fill_rate(ask: &Ask, answer: Leased<RateLease>, sent: BootInstant, run: u64) -> Option<Rest> {
    let Leased::Granted(RateLease { grant, last_grant_time }) = answer else {
        return without_lease(ask, &answer);
    };
    let allowance = grant.allowance;
    let since = allowance.lease_time.saturating_sub(last_grant_time);
    ask.slot.answer.store(Some(Arc::new(Answer {
        sent,
        took: took(sent),
        shared: since < LEASE_NANOS && allowance.lease_time != last_grant_time,
        left: Left::Rate(allowance.full_time.saturating_sub(allowance.lease_time)),
    })));
    let interval = counts(ask).and_then(Counts::rate).map_or(0, Rate::interval);
    let lease = Lease { sent, amount: 0, interval, of: LeaseOf::Rate(allowance, run) };
    fill(ask, grant.amount, grant.left, lease, allowance.revision)
}

/// Fills a slot with a lease of credits; returns what is left of the last one, or the lease itself if the plan has changed.
pub(super) fn fill_credits(
    ask: &Ask,
    row: &CreditAsk,
    answer: Leased<CreditLease>,
    sent: BootInstant,
) -> Option<Rest> {
    let Leased::Granted(CreditLease { debit, time, revision, leased }) = answer else {
        return without_lease(ask, &answer);
    };
    let until = |refill: time::OffsetDateTime| Duration::try_from(refill - time).unwrap_or(Duration::ZERO);
    ask.slot.answer.store(Some(Arc::new(Answer {
        sent,
        took: took(sent),
        shared: leased,
        left: Left::Credits(debit.balance.credits, debit.next_refill.map(until)),
    })));
    let of = LeaseOf::Credits(row.lease_id);
    fill(ask, debit.amount, debit.balance.credits, Lease { sent, amount: 0, interval: 0, of }, revision)
}

/// Returns how long an answer took, in microseconds.
fn took(sent: BootInstant) -> u32 {
    u32::try_from(BootInstant::now().since(sent).as_micros()).unwrap_or(u32::MAX)
}

/// Replaces the share if something was granted; `left`: what the database has left. What was granted under another
/// revision than the plan's is not spent: the limit may count another subject now.
fn fill(ask: &Ask, amount: i64, left: i64, lease: Lease, revision: i64) -> Option<Rest> {
    let amount = u32::try_from(amount).unwrap_or(u32::MAX);
    if !ask.plan.is_of(revision) {
        ask.plan.outdate();
        return (amount > 0).then(|| Lease { amount, ..lease }.ended(amount, lease.sent)).flatten();
    }
    if amount == 0 {
        return None;
    }
    // Where little is left, nothing is leased ahead: what is left of a share then would be lost to others.
    let low = if left >= i64::from(amount).saturating_mul(2) { amount / 4 } else { 0 };
    let ended = ask.slot.fill(Lease { amount, ..lease });
    ask.slot.low.store(low, Ordering::Relaxed);
    ended
}

fn without_lease<T>(ask: &Ask, answer: &Leased<T>) -> Option<Rest> {
    if matches!(answer, Leased::NoLimit) {
        ask.plan.outdate();
    }
    None
}
