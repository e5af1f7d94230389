//! Rates: the generic cell rate algorithm (ITU-T I.371) on an allowance that replicas lease from. Times are
//! nanoseconds since 1970 by the database's clock.

/// The longest time in which a limit may refill from empty: it keeps all times within 64 bits.
const REFILL_TIME_MAX: i64 = 100 * 366 * 86_400 * 1_000_000_000;

/// The longest period of a rate: 31 days.
const PERIOD_MAX: i64 = 31 * 86_400 * 1_000_000_000;

/// So many requests per period, and at most `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: i64,
    burst: i64,
}

/// What is stored of one limit and one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// When it will be full again; in the past: it is full.
    pub full_time: i64,
    /// When it was last leased from.
    pub lease_time: i64,
    /// Increases when the clock is found to have been set back.
    pub era: i64,
    /// The revision of the plan that it was last leased under.
    pub revision: i64,
}

/// What its holder returns of an earlier lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// How much is left of the lease.
    pub amount: i64,
    /// The lease's time, by the database's clock.
    pub lease_time: i64,
    /// The allowance's era at the lease.
    pub era: i64,
    /// The plan's revision at the lease.
    pub revision: i64,
}

/// The answer to a request for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The stored state after it.
    pub allowance: Allowance,
    /// How much may be spent.
    pub amount: i64,
    /// How much is left for the next lease.
    pub left: i64,
    /// How long until all that was wanted fits, in nanoseconds; `None`: it never does.
    pub retry_after: Option<i64>,
}

impl Rate {
    /// Creates a rate of `requests` per `period` in nanoseconds; `None` outside the bounds: a period of 1 ns to 31
    /// days, positive amounts, and a refill from empty within 100 years.
    #[must_use]
    pub fn new(requests: i64, period: i64, burst: i64) -> Option<Self> {
        if requests < 1 || burst < 1 || !(1..=PERIOD_MAX).contains(&period) {
            return None;
        }
        // Rounded up: never more than the rate.
        let interval = period.checked_add(requests.checked_sub(1)?)?.checked_div(requests)?;
        let full = interval.checked_mul(burst)?;
        (full <= REFILL_TIME_MAX).then_some(Self { interval, burst })
    }

    /// Returns the time in which one request refills, in nanoseconds.
    #[must_use]
    pub fn interval(self) -> i64 {
        self.interval
    }

    /// Returns how much may be spent at once.
    #[must_use]
    pub fn burst(self) -> i64 {
        self.burst
    }

    /// Returns the time in which an empty allowance is full again, in nanoseconds.
    #[must_use]
    pub fn refill_time(self) -> i64 {
        self.interval.saturating_mul(self.burst)
    }

    /// Leases as much of `wanted` as fits, after taking back what was returned; nothing, if not even `least` fits: what
    /// is leased in vain would have to be returned. A missing allowance is full.
    #[must_use]
    pub fn lease(
        self,
        revision: i64,
        stored: Option<Allowance>,
        now: i64,
        returned: Option<Returned>,
        wanted: i64,
        least: i64,
    ) -> Grant {
        let stored = stored.unwrap_or(Allowance { full_time: now, lease_time: now, era: 0, revision });
        let era = stored.era.saturating_add(i64::from(now < stored.lease_time));
        // A return counts only where nothing has changed since the lease but the time.
        let same = |returned: &Returned| {
            returned.era == era && returned.revision == revision && stored.revision == revision
        };
        let credit = returned.filter(same).map_or(0, |returned| self.credit(returned, now));
        // Cut at one burst: a clock that was set back delays no longer.
        let latest = now.saturating_add(self.refill_time());
        let full_time = stored.full_time.saturating_sub(credit).clamp(now, latest);
        let room = latest.saturating_sub(full_time).checked_div(self.interval).unwrap_or(0);
        let amount = if room < least { 0 } else { wanted.clamp(0, room) };
        let leased = full_time.saturating_add(amount.saturating_mul(self.interval));
        let fits = wanted.saturating_mul(self.interval).saturating_add(full_time).saturating_sub(latest);
        Grant {
            allowance: Allowance { full_time: leased, lease_time: now, era, revision },
            amount,
            left: room.saturating_sub(amount),
            retry_after: (wanted <= self.burst).then_some(fits.max(0)),
        }
    }

    /// Returns what a return is worth, in nanoseconds of refill. What has refilled since the lease is in the
    /// allowance already: it would count twice.
    fn credit(self, returned: Returned, now: i64) -> i64 {
        let refilled = now.saturating_sub(returned.lease_time).max(0);
        returned.amount.max(0).saturating_mul(self.interval).saturating_sub(refilled).max(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn rate(requests: i64, burst: i64) -> Rate {
        Rate::new(requests, SECOND, burst).unwrap()
    }

    fn lease(rate: Rate, stored: Option<Allowance>, now: i64, wanted: i64) -> Grant {
        rate.lease(1, stored, now, None, wanted, 0)
    }

    #[test]
    fn an_interval_is_rounded_up_and_bounds_are_kept() {
        assert_eq!(rate(3, 1).interval(), 333_333_334);
        assert_eq!(rate(1_000_000, 1).interval(), 1_000);
        assert_eq!(Rate::new(0, SECOND, 1), None);
        assert_eq!(Rate::new(1, SECOND, 0), None);
        assert_eq!(Rate::new(1, 0, 1), None);
        assert_eq!(Rate::new(1, PERIOD_MAX, 1).map(Rate::refill_time), Some(PERIOD_MAX));
        assert_eq!(Rate::new(1, PERIOD_MAX + 1, 1), None);
        assert_eq!(Rate::new(1, PERIOD_MAX, 1_200), None, "more than 100 years");
        assert_eq!(Rate::new(i64::MAX, SECOND, 1), None, "the sum overflows");
    }

    #[test]
    fn a_full_allowance_grants_its_burst_and_then_the_rate() {
        let first = lease(rate(10, 5), None, 0, 8);
        assert_eq!((first.amount, first.left), (5, 0));
        assert_eq!(first.retry_after, None, "8 never fit into a burst of 5");

        let soon = lease(rate(10, 5), Some(first.allowance), SECOND / 10 - 1, 1);
        assert_eq!((soon.amount, soon.retry_after), (0, Some(1)));

        let later = lease(rate(10, 5), Some(soon.allowance), SECOND / 10, 1);
        assert_eq!((later.amount, later.left), (1, 0));

        let much_later = lease(rate(10, 5), Some(later.allowance), 3_600 * SECOND, 100);
        assert_eq!(much_later.amount, 5, "it holds no more than its burst");
    }

    #[test]
    fn a_clock_that_was_set_back_delays_by_one_refill_at_most() {
        let first = lease(rate(10, 5), None, 600 * SECOND, 5);

        let back = lease(rate(10, 5), Some(first.allowance), 0, 5);
        assert_eq!((back.amount, back.retry_after), (0, Some(SECOND / 2)));
        assert_eq!(back.allowance.era, first.allowance.era + 1);

        let refilled = lease(rate(10, 5), Some(back.allowance), SECOND / 2, 5);
        assert_eq!(refilled.amount, 5);
    }

    #[test]
    fn a_return_is_worth_what_has_not_refilled_since_the_lease() {
        let rate = rate(10, 5);
        let Allowance { lease_time, era, revision, .. } = lease(rate, None, 0, 5).allowance;
        let stored = lease(rate, None, 0, 5).allowance;
        let returned = |amount| Some(Returned { amount, lease_time, era, revision });

        assert_eq!(rate.lease(1, Some(stored), 0, returned(3), 5, 0).amount, 3);
        assert_eq!(rate.lease(1, Some(stored), SECOND / 10, returned(3), 5, 0).amount, 1 + 2);
        assert_eq!(rate.lease(1, Some(stored), SECOND * 3 / 10, returned(3), 5, 0).amount, 3);
        assert_eq!(rate.lease(2, Some(stored), 0, returned(3), 5, 0).amount, 0, "of another revision");
        let other_era = Some(Allowance { era: era + 1, ..stored });
        assert_eq!(rate.lease(1, other_era, 0, returned(3), 5, 0).amount, 0, "of another era");
    }

    #[test]
    fn nothing_is_leased_if_the_least_does_not_fit() {
        let rate = rate(10, 5);
        let stored = lease(rate, None, 0, 3).allowance;
        let vain = rate.lease(1, Some(stored), 0, None, 4, 3);
        assert_eq!((vain.amount, vain.left, vain.allowance), (0, 2, stored));
        assert_eq!(rate.lease(1, Some(stored), 0, None, 4, 2).amount, 2);
    }

    #[test]
    fn cost_0_leases_nothing_and_tells_what_is_left() {
        let first = lease(rate(10, 5), None, 0, 2);
        let asked = lease(rate(10, 5), Some(first.allowance), 0, 0);
        assert_eq!((asked.amount, asked.left, asked.retry_after), (0, 3, Some(0)));
        assert_eq!(asked.allowance, first.allowance);
    }

    proptest! {
        #[test]
        fn any_arguments_keep_the_bounds(
            requests: i64, period: i64, burst: i64, full_time: i64, lease_time: i64, era: i64, now: i64,
            amount: i64, wanted: i64, least: i64,
        ) {
            let rate = Rate::new(requests, period, burst)
                .or_else(|| Rate::new(1 + requests.rem_euclid(1_000), SECOND, 1 + burst.rem_euclid(1_000)));
            let rate = rate.unwrap();
            let stored = Allowance { full_time, lease_time, era, revision: 1 };
            let returned = Returned { amount, lease_time, era, revision: 1 };
            let grant = rate.lease(1, Some(stored), now, Some(returned), wanted, least);
            prop_assert!((0..=rate.burst()).contains(&grant.amount));
            prop_assert!((0..=rate.burst()).contains(&grant.left));
            prop_assert!(grant.amount <= wanted.max(0));
            prop_assert!(grant.amount == 0 || grant.amount >= least.min(wanted));
            prop_assert!(grant.allowance.full_time >= now);
        }
    }
}
