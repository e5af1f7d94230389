//! Every interleaving of threads that spend of a share, give back and replace it, on the real
//! `core/src/limits/share.rs`: of no lease more is spent than was granted, and nothing after its end. `Weakened` is the
//! same without one of its rules: the checker must then find an excess.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::Mutex;
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use loom::thread;

use crate::boot_instant::BootInstant;
use crate::limits::share::Share;
use crate::limits::{lease, number};

/// How long a lease lasts, and how much each grants.
const LEASE: Duration = Duration::from_nanos(10);
const GRANTED: u32 = 2;

/// A rule of a share that `Weakened` does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// It is looked and taken at once.
    TakingAtOnce,
    /// Only the lease that something was taken from takes it back.
    SameLeaseTakesBack,
    /// What is taken is of the lease whose end was looked at.
    SameLeaseIsTaken,
    /// Of two leases in turn, each has a place for its time.
    TwoTimes,
    /// The end of the lease is looked at after taking too.
    LookingAgain,
    /// What was taken too late is given back or is lost, but not spent.
    RefusingLate,
}

/// What a share does: the number of the lease that was taken from.
trait Spends: Send + Sync + 'static {
    fn take(&self, before: BootInstant, now: &mut dyn FnMut() -> BootInstant) -> Option<u32>;
    fn give_back(&self, number: u32);
    fn replace(&self, amount: u32, sent: BootInstant) -> u32;
}

impl Spends for Share {
    fn take(&self, before: BootInstant, now: &mut dyn FnMut() -> BootInstant) -> Option<u32> {
        Some(number(Self::take(self, 1, LEASE, before, now)?.number))
    }

    fn give_back(&self, number: u32) {
        Self::give_back(self, lease(number), 1);
    }

    fn replace(&self, amount: u32, sent: BootInstant) -> u32 {
        Self::replace(self, amount, sent)
    }
}

/// The same rules again, so that each can be left out.
struct Weakened {
    without: Without,
    state: AtomicU64,
    sent: [AtomicI64; 2],
}

impl Weakened {
    fn new(without: Without) -> Self {
        Self { without, state: AtomicU64::new(0), sent: [AtomicI64::new(0), AtomicI64::new(0)] }
    }

    fn sent(&self, number: u32) -> &AtomicI64 {
        let at = if self.without == Without::TwoTimes { 0 } else { number % 2 };
        &self.sent[usize::try_from(at).unwrap()]
    }

    fn exchange(&self, state: u64, next: u64) -> Result<u64, u64> {
        match self.without {
            Without::TakingAtOnce => {
                self.state.store(next, SeqCst);
                Ok(state)
            }
            // Of whatever lease there is now.
            Without::SameLeaseIsTaken => {
                let taken =
                    self.state.fetch_update(SeqCst, SeqCst, |now| (split(now).1 > 0).then(|| now - 1));
                taken.map(|_| state)
            }
            _ => self.state.compare_exchange(state, next, SeqCst, SeqCst),
        }
    }
}

impl Spends for Weakened {
    fn take(&self, before: BootInstant, now: &mut dyn FnMut() -> BootInstant) -> Option<u32> {
        let mut state = self.state.load(SeqCst);
        loop {
            let (number, left) = split(state);
            let rest = left.checked_sub(1)?;
            let sent = self.sent(number).load(SeqCst);
            let ended = |at: BootInstant| at.since(BootInstant { boot: sent, wall: sent }) >= LEASE;
            if ended(before) {
                return None;
            }
            match self.exchange(state, u64::from(number) << 32 | u64::from(rest)) {
                Ok(taken_from) => {
                    let number = split(taken_from).0;
                    if self.without == Without::LookingAgain || !ended(now()) {
                        return Some(number);
                    }
                    self.give_back(number);
                    return (self.without == Without::RefusingLate).then_some(number);
                }
                Err(changed) => state = changed,
            }
        }
    }

    fn give_back(&self, number: u32) {
        let _ = self.state.fetch_update(SeqCst, SeqCst, |state| {
            let same = split(state).0 == number || self.without == Without::SameLeaseTakesBack;
            same.then(|| state + 1)
        });
    }

    fn replace(&self, amount: u32, sent: BootInstant) -> u32 {
        let next = split(self.state.load(SeqCst)).0 + 1;
        self.sent(next).store(sent.boot, SeqCst);
        split(self.state.swap(u64::from(next) << 32 | u64::from(amount), SeqCst)).1
    }
}

fn split(state: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap();
    (half(state >> 32), half(state))
}

/// A share with a first lease, the clock, and what was spent of each lease.
struct Scene<S> {
    share: S,
    clock: AtomicI64,
    /// When each lease was sent; 0: never.
    sent: [AtomicI64; 4],
    spent: [AtomicU32; 4],
    returned: Mutex<[u32; 4]>,
}

impl<S: Spends> Scene<S> {
    fn new(share: S) -> Self {
        let scene = Self {
            share,
            clock: AtomicI64::new(1),
            sent: std::array::from_fn(|_| AtomicI64::new(0)),
            spent: std::array::from_fn(|_| AtomicU32::new(0)),
            returned: Mutex::new([0; 4]),
        };
        scene.lease(1);
        scene
    }

    fn now(&self) -> BootInstant {
        let now = self.clock.load(SeqCst);
        BootInstant { boot: now, wall: now }
    }

    /// Grants the lease of this number; what was left of the last is returned.
    fn lease(&self, number: usize) {
        let sent = self.now();
        self.sent[number].store(sent.boot, SeqCst);
        let left = self.share.replace(GRANTED, sent);
        self.returned.lock().unwrap()[number - 1] = left;
    }

    /// Takes one and spends it; the lease has not ended when the clock is read last.
    fn spend(&self) -> Option<u32> {
        let before = self.now();
        let mut last = None;
        let number = self.share.take(before, &mut || *last.insert(self.now()))?;
        let sent = self.sent[usize::try_from(number).unwrap()].load(SeqCst);
        let now = last.unwrap_or_else(|| self.now());
        assert!(now.since(BootInstant { boot: sent, wall: sent }) < LEASE, "spent after the end");
        self.spent[usize::try_from(number).unwrap()].fetch_add(1, SeqCst);
        Some(number)
    }

    /// Takes one, and gives it back: another limit has no room.
    fn give_back(&self) {
        if let Some(number) = self.spend() {
            self.spent[usize::try_from(number).unwrap()].fetch_sub(1, SeqCst);
            self.share.give_back(number);
        }
    }

    /// Passes the end of all leases, and grants another.
    fn lease_later(&self, number: usize) {
        self.clock.fetch_add(10, SeqCst);
        self.lease(number);
    }

    fn judge(&self, last: usize) {
        let rest = self.share.replace(0, self.now());
        let mut returned = self.returned.lock().unwrap();
        returned[last] = rest;
        for number in 1..=last {
            let spent = self.spent[number].load(SeqCst);
            assert!(spent + returned[number] <= GRANTED, "more was spent than granted");
        }
    }
}

/// Runs these parts at once, in every interleaving, and then judges what was spent of so many leases.
fn explore<S: Spends>(
    share: impl Fn() -> S + Sync + Send + 'static,
    parts: &'static [fn(&Scene<S>)],
    leases: usize,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(3);
    model.check(move || {
        let scene = Arc::new(Scene::new(share()));
        let threads: Vec<_> = parts
            .iter()
            .map(|part| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || part(&scene))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        scene.judge(leases);
    });
}

fn spend_twice<S: Spends>(scene: &Scene<S>) {
    scene.spend();
    scene.spend();
}

fn give_back<S: Spends>(scene: &Scene<S>) {
    scene.give_back();
}

fn spend_once<S: Spends>(scene: &Scene<S>) {
    scene.spend();
}

fn lease_again<S: Spends>(scene: &Scene<S>) {
    scene.lease(2);
}

fn lease_later<S: Spends>(scene: &Scene<S>) {
    scene.lease_later(2);
}

/// Two threads that spend, one that gives back while the lease is replaced, one that spends while it ends.
fn walk<S: Spends>(share: fn() -> S) {
    explore(share, &[spend_twice, spend_twice], 1);
    explore(share, &[give_back, lease_again], 2);
    explore(share, &[spend_once, give_back, lease_again], 2);
    explore(share, &[spend_once, lease_later], 2);
    explore(share, &[spend_twice, lease_later], 2);
}

#[test]
fn no_more_is_spent_than_was_granted_and_nothing_after_the_end() {
    walk(Share::new);
}

#[test]
fn the_same_rules_again_hold() {
    walk(|| Weakened::new(Without::Nothing));
}

#[test]
#[should_panic(expected = "more was spent than granted")]
fn what_is_looked_at_and_then_taken_is_spent_twice() {
    walk(|| Weakened::new(Without::TakingAtOnce));
}

#[test]
#[should_panic(expected = "more was spent than granted")]
fn another_lease_that_takes_back_grants_too_much() {
    walk(|| Weakened::new(Without::SameLeaseTakesBack));
}

#[test]
#[should_panic(expected = "more was spent than granted")]
fn what_is_taken_of_another_lease_than_was_looked_at_is_too_much() {
    walk(|| Weakened::new(Without::SameLeaseIsTaken));
}

#[test]
#[should_panic(expected = "spent after the end")]
fn with_one_time_for_two_leases_the_earlier_seems_young() {
    walk(|| Weakened::new(Without::TwoTimes));
}

#[test]
#[should_panic(expected = "spent after the end")]
fn without_looking_again_a_thread_that_stopped_spends_late() {
    walk(|| Weakened::new(Without::LookingAgain));
}

#[test]
#[should_panic(expected = "spent after the end")]
fn what_was_taken_late_must_not_be_spent() {
    walk(|| Weakened::new(Without::RefusingLate));
}
