//! What a replica may spend of one allowance, until its lease ends. Spent by any number of threads without a
//! lock; replaced by one. A model checker tests every interleaving (tests/model).

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use super::sync::{AtomicI64, AtomicU64};
use crate::boot_instant::BootInstant;

/// A share; empty at first.
#[derive(Debug)]
pub struct Share {
    /// The number of the lease in the upper half, and what is left of it in the lower half.
    state: AtomicU64,
    /// When the statement of a lease was sent, by both clocks; of the leases with even and with odd numbers, since a
    /// thread may still read of one lease while the next begins.
    sent: [(AtomicI64, AtomicI64); 2],
}

/// The number of the lease that something was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseNumber(pub(super) u32);

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Of which lease.
    pub number: LeaseNumber,
    /// What is left of it.
    pub left: u32,
}

impl Share {
    /// Creates an empty share.
    #[must_use]
    pub fn new() -> Self {
        let never = || (AtomicI64::new(0), AtomicI64::new(0));
        Self { state: AtomicU64::new(0), sent: [never(), never()] }
    }

    /// Takes `amount` if there is as much and the lease, of the length `lease`, has not ended: neither at `before`, so
    /// that nothing is taken in vain, nor after taking. Calls `now` only then: a thread that stopped for long in between
    /// finds that the lease has ended.
    pub fn take(
        &self,
        amount: u32,
        lease: Duration,
        before: BootInstant,
        now: impl FnOnce() -> BootInstant,
    ) -> Option<Taken> {
        let mut state = self.state.load(Acquire);
        loop {
            let (number, left) = split(state);
            let rest = left.checked_sub(amount)?;
            // Of this lease, if the state has not changed until the exchange.
            let sent = self.sent_of(number);
            if before.since(sent) >= lease {
                return None;
            }
            match self.state.compare_exchange_weak(state, join(number, rest), AcqRel, Acquire) {
                Ok(_) => {
                    let number = LeaseNumber(number);
                    if now().since(sent) < lease {
                        return Some(Taken { number, left: rest });
                    }
                    // It was not spent, so its holder may return it.
                    self.give_back(number, amount);
                    return None;
                }
                Err(changed) => state = changed,
            }
        }
    }

    /// Gives back what was taken, if its lease is still in the share.
    pub fn give_back(&self, number: LeaseNumber, amount: u32) {
        let _ = self.state.fetch_update(AcqRel, Acquire, |state| {
            let (current, left) = split(state);
            (current == number.0).then(|| join(current, left.saturating_add(amount)))
        });
    }

    /// Returns how much is left, for answers.
    #[must_use]
    pub fn left(&self) -> u32 {
        split(self.state.load(Relaxed)).1
    }

    /// Replaces the lease and returns what was left of the last. Called by one thread at a time.
    pub fn replace(&self, amount: u32, sent: BootInstant) -> u32 {
        let (number, _) = split(self.state.load(Acquire));
        let next = number.wrapping_add(1);
        let (boot, wall) = self.slot(next);
        boot.store(sent.boot, Release);
        wall.store(sent.wall, Release);
        split(self.state.swap(join(next, amount), AcqRel)).1
    }

    fn sent_of(&self, number: u32) -> BootInstant {
        let (boot, wall) = self.slot(number);
        BootInstant { boot: boot.load(Acquire), wall: wall.load(Acquire) }
    }

    fn slot(&self, number: u32) -> &(AtomicI64, AtomicI64) {
        let [even, odd] = &self.sent;
        if number.is_multiple_of(2) { even } else { odd }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
fn split(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

fn join(number: u32, left: u32) -> u64 {
    u64::from(number) << 32 | u64::from(left)
}

#[cfg(test)]
mod tests {
    use super::super::sync::explore;
    use super::*;

    const LEASE: Duration = Duration::from_nanos(10);

    fn at(boot: i64, wall: i64) -> BootInstant {
        BootInstant { boot, wall }
    }

    #[test]
    fn a_share_is_spent_once_and_until_its_lease_ends() {
        explore(|| {
            let share = Share::new();
            assert_eq!(share.take(1, LEASE, at(0, 0), || at(0, 0)), None, "it is empty");

            assert_eq!(share.replace(3, at(0, 0)), 0);
            assert!(share.take(2, LEASE, at(0, 0), || at(9, 9)).is_some());
            assert_eq!(share.take(2, LEASE, at(0, 0), || at(9, 9)), None, "only 1 is left");
            assert_eq!(share.take(1, LEASE, at(10, 0), || at(10, 0)), None, "nothing is taken in vain");
            assert_eq!(share.left(), 1);
            assert_eq!(share.take(1, LEASE, at(9, 9), || at(10, 0)), None, "by the clock that does not jump");
            assert_eq!(share.replace(1, at(10, 10)), 1, "what was taken too late is not spent");
            assert_eq!(share.take(1, LEASE, at(11, 11), || at(11, 20)), None, "by the wall clock");
        });
    }

    #[test]
    fn only_the_same_lease_takes_back() {
        explore(|| {
            let share = Share::new();
            share.replace(3, at(0, 0));
            let taken = share.take(3, LEASE, at(1, 1), || at(1, 1)).unwrap().number;
            share.give_back(taken, 1);
            assert_eq!(share.left(), 1);
            assert_eq!(share.replace(2, at(2, 2)), 1);
            share.give_back(taken, 2);
            assert_eq!(share.left(), 2);
        });
    }
}
