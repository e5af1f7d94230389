//! Credits: a balance that replicas debit ahead of spending, and that a calendar refills. Refills happen at the
//! next debit, strictly forward: a clock that was set back refills nothing twice.

use time::OffsetDateTime;

use super::CalendarPeriod;

/// What a calendar adds to a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// How much.
    pub amount: i64,
    /// How often.
    pub period: CalendarPeriod,
    /// Whether the rest of the last period stays.
    pub mode: RefillMode,
}

/// What a refill does to the rest of the last period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefillMode {
    /// It ends.
    Replace,
    /// It stays.
    Add,
}

/// What is stored of one limit and one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// What can be debited.
    pub credits: i64,
    /// When the last period began that was refilled for.
    pub period_start: OffsetDateTime,
}

/// The answer to a request for a debit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debit {
    /// The stored state after it.
    pub balance: Balance,
    /// How much may be spent.
    pub amount: i64,
    /// When the next refill is; `None`: never.
    pub next_refill: Option<OffsetDateTime>,
}

impl Balance {
    /// Returns the balance of a subject that was never debited.
    #[must_use]
    pub fn initial(credits: i64, refill: Option<Refill>, now: OffsetDateTime) -> Self {
        Self { credits, period_start: refill.map_or(now, |refill| refill.period.start(now)) }
    }

    /// Returns the balance with the refills up to `now`.
    #[must_use]
    pub fn refilled(self, refill: Option<Refill>, now: OffsetDateTime) -> Self {
        let Some(Refill { amount, period, mode }) = refill else { return self };
        let credits = match (period.begun_between(self.period_start, now), mode) {
            (0, _) => return self,
            (_, RefillMode::Replace) => amount,
            (begun, RefillMode::Add) => self.credits.saturating_add(amount.saturating_mul(begun)),
        };
        Self { credits, period_start: period.start(now) }
    }

    /// Debits as much of `wanted` as there is, after the refills up to `now`; nothing, if there is not even `least`.
    #[must_use]
    pub fn debit(self, refill: Option<Refill>, now: OffsetDateTime, wanted: i64, least: i64) -> Debit {
        let refilled = self.refilled(refill, now);
        let amount = if refilled.credits < least { 0 } else { wanted.clamp(0, refilled.credits.max(0)) };
        let balance = Self { credits: refilled.credits.saturating_sub(amount), ..refilled };
        let next_refill = refill.map(|refill| refill.period.next(now.max(refilled.period_start)));
        Debit { balance, amount, next_refill }
    }

    /// Takes back what is left of a debit from the period that began at `period_start`. The rest of a period that
    /// was replaced ended with it. The caller makes sure that each debit is settled once.
    #[must_use]
    pub fn settle(self, refill: Option<Refill>, period_start: OffsetDateTime, left: i64) -> Self {
        let replaced = refill
            .is_some_and(|refill| refill.mode == RefillMode::Replace && self.period_start != period_start);
        if replaced { self } else { Self { credits: self.credits.saturating_add(left.max(0)), ..self } }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const JANUARY: OffsetDateTime = datetime!(2028-01-31 12:00 UTC);

    fn monthly(mode: RefillMode) -> Refill {
        Refill { amount: 10, period: CalendarPeriod::Month, mode }
    }

    #[test]
    fn a_balance_without_a_refill_ends() {
        let first = Balance::initial(5, None, JANUARY).debit(None, JANUARY, 3, 0);
        assert_eq!((first.amount, first.next_refill), (3, None));
        let second = first.balance.debit(None, datetime!(2029-01-01 0:00 UTC), 3, 3);
        assert_eq!((second.amount, second.balance.credits), (0, 2), "it is left to smaller costs");
        let second = first.balance.debit(None, datetime!(2029-01-01 0:00 UTC), 3, 2);
        assert_eq!((second.amount, second.balance.credits), (2, 0));
    }

    #[test]
    fn a_refill_replaces_or_adds_for_each_period_that_began() {
        for (mode, expected) in [(RefillMode::Replace, 10), (RefillMode::Add, 5 + 2 * 10)] {
            let refill = Some(monthly(mode));
            let balance = Balance::initial(5, refill, JANUARY);
            let debit = balance.debit(refill, datetime!(2028-03-01 0:00 UTC), 100, 0);
            assert_eq!(debit.amount, expected);
            assert_eq!(debit.next_refill, Some(datetime!(2028-04-01 0:00 UTC)));
        }
    }

    #[test]
    fn a_clock_that_was_set_back_refills_nothing_twice() {
        let refill = Some(monthly(RefillMode::Add));
        let balance = Balance::initial(0, refill, JANUARY);
        let march = balance.debit(refill, datetime!(2028-03-01 0:00 UTC), 0, 0).balance;
        assert_eq!(march.credits, 20);
        let back = march.debit(refill, JANUARY, 0, 0);
        assert_eq!(back.balance, march);
        assert_eq!(back.next_refill, Some(datetime!(2028-04-01 0:00 UTC)));
        assert_eq!(back.balance.refilled(refill, datetime!(2028-03-31 0:00 UTC)), march);
    }

    #[test]
    fn a_replaced_period_takes_nothing_back() {
        for (mode, expected) in [(RefillMode::Replace, 10), (RefillMode::Add, 1 + 10 + 4)] {
            let refill = Some(monthly(mode));
            let debit = Balance::initial(5, refill, JANUARY).debit(refill, JANUARY, 4, 0);
            let later = debit.balance.refilled(refill, datetime!(2028-02-01 0:00 UTC));
            assert_eq!(later.settle(refill, debit.balance.period_start, 4).credits, expected);
            assert_eq!(debit.balance.settle(refill, debit.balance.period_start, 4).credits, 5);
        }
    }
}
