//! Chooses the connection to close when the memory for requests is full: the largest one of an unauthenticated peer at
//! the address that takes the most. So a flood closes its own connections, and not those of new clients. An address that
//! has its share closes its own largest connection for a smaller one: new clients at the flood's address are served, too.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;

use atomic_waker::AtomicWaker;

use super::fair_limiter::FairLimiter;

/// The bytes of an unauthenticated peer's connection before its first request: its tasks, buffers and tables.
pub(crate) const CONNECTION: usize = 20 * 1024;

/// A connection that may be evicted while its peer is unauthenticated.
#[derive(Debug)]
pub(crate) struct Evictable {
    taken: AtomicUsize,
    evicted: AtomicBool,
    waker: AtomicWaker,
    /// What it took when it was evicted.
    released: AtomicUsize,
    closing: Arc<Mutex<Closing>>,
}

/// The bytes of evicted connections that are not closed yet, and those that were granted in their place.
#[derive(Debug, Default)]
struct Closing {
    bytes: usize,
    granted: usize,
}

impl Evictable {
    fn new(closing: &Arc<Mutex<Closing>>) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            released: AtomicUsize::new(0),
            closing: Arc::clone(closing),
        }
    }

    /// Sets how many bytes the connection takes.
    pub(crate) fn set_taken(&self, bytes: usize) {
        self.taken.store(bytes, Ordering::Relaxed);
    }

    /// Returns whether the connection must be closed.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Has the current task woken when the connection is evicted.
    pub(crate) fn wake(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Evicts it, unless it is already.
    fn evict(&self) {
        let mut closing = self.closing();
        if !self.evicted.swap(true, Ordering::AcqRel) {
            let bytes = self.taken.load(Ordering::Relaxed);
            self.released.store(bytes, Ordering::Relaxed);
            closing.bytes = closing.bytes.saturating_add(bytes);
        }
        drop(closing);
        // Without the lock, since that wakes a task.
        self.waker.wake();
    }

    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        if self.is_evicted() {
            let bytes = self.released.load(Ordering::Relaxed);
            let mut closing = self.closing();
            closing.bytes = closing.bytes.saturating_sub(bytes);
            closing.granted = closing.granted.saturating_sub(bytes);
        }
    }
}

/// The bytes that a connection needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) address: IpAddr,
    /// What it takes already; 0: it is new.
    pub(super) own: usize,
    pub(super) more: usize,
}

/// The connections of all unauthenticated peers, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Evictables {
    all: Mutex<Vec<(IpAddr, Weak<Evictable>)>>,
    closing: Arc<Mutex<Closing>>,
}

impl Evictables {
    /// Adds a connection of this address, until the result is dropped.
    pub(super) fn add(&self, address: IpAddr) -> Arc<Evictable> {
        let added = Arc::new(Evictable::new(&self.closing));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were dropped are removed before the list grows, so adding takes constant time on average.
        if all.len() == all.capacity() {
            all.retain(|(_, one)| one.strong_count() > 0);
        }
        all.push((address, Arc::downgrade(&added)));
        added
    }

    /// Evicts a connection for `claim`, unless one that is closing leaves room; returns whether there is room soon. So many
    /// new connections at once evict no more than they need.
    pub(super) fn make_room(&self, taken: &FairLimiter<IpAddr>, claim: Claim) -> bool {
        if !self.grant(claim.more) {
            let Some(largest) = taken.read(|held| self.largest(held, claim)) else { return false };
            largest.evict();
            // Others may have been granted its bytes; the next claim evicts another one for those.
            let mut closing = self.closing();
            closing.granted = closing.granted.saturating_add(claim.more);
        }
        true
    }

    /// Grants bytes of the connections that are closing, if they have as many left.
    fn grant(&self, bytes: usize) -> bool {
        let mut closing = self.closing();
        let granted = closing.granted.saturating_add(bytes);
        let fits = granted <= closing.bytes;
        if fits {
            closing.granted = granted;
        }
        fits
    }

    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the largest connection that may be evicted for `claim`: of the address that takes the most, and of
    /// several that are equal the oldest.
    fn largest(&self, held: &dyn Fn(&IpAddr) -> usize, claim: Claim) -> Option<Arc<Evictable>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (connection, address) = (claim.least(claim.own), claim.least(held(&claim.address)));
        let large = all.iter().rev().filter_map(|(of, one)| {
            let one = one.upgrade()?;
            let (size, held) = (one.taken.load(Ordering::Relaxed), held(of));
            let takes_enough =
                if *of == claim.address { size >= connection } else { size >= claim.more && held >= address };
            (takes_enough && size > 0 && !one.is_evicted()).then_some((held, size, one))
        });
        // The last of several that are equal: in reverse, the oldest.
        large.max_by_key(|(held, size, _)| (*held, *size)).map(|(_, _, one)| one)
    }
}

impl Claim {
    /// Returns the fewest bytes that must be taken elsewhere, if `taken` bytes are taken here: as many as here with what is
    /// claimed; for a connection that has some already, more. One connection itself does not count, so a new one also has
    /// room for its first call.
    fn least(self, taken: usize) -> usize {
        let others = taken.saturating_sub(CONNECTION);
        others.saturating_add(self.more).saturating_add(usize::from(self.own > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::fair_limiter::Permit;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// A claim of a connection that has `own` bytes beyond its first ones.
    fn claim(last: u8, own: usize, more: usize) -> Claim {
        Claim { address: address(last), own: CONNECTION + own, more }
    }

    fn new(last: u8) -> Claim {
        Claim { address: address(last), own: 0, more: CONNECTION }
    }

    /// Opens connections of these addresses and sizes; returns them with their permits.
    fn open(
        taken: &FairLimiter<IpAddr>,
        all: &Evictables,
        sizes: &[(u8, usize)],
    ) -> (Vec<Permit<IpAddr>>, Vec<Arc<Evictable>>) {
        let open = sizes.iter().map(|(last, bytes)| {
            let one = all.add(address(*last));
            one.set_taken(*bytes);
            (taken.take_many(address(*last), *bytes).unwrap(), one)
        });
        open.unzip()
    }

    /// Makes room, and forgets what was evicted for it as if it were closed.
    fn make_room(all: &Evictables, taken: &FairLimiter<IpAddr>, claim: Claim) -> bool {
        let made = all.make_room(taken, claim);
        *all.closing() = Closing::default();
        made
    }

    fn evicted(connections: &[Arc<Evictable>]) -> Vec<bool> {
        connections.iter().map(|one| one.is_evicted()).collect()
    }

    #[test]
    fn the_largest_connection_of_the_largest_address_is_evicted() {
        let (taken, all) = (FairLimiter::new(1 << 20), Evictables::default());
        let sizes = [(1, 20_000), (2, 15_000), (2, 16_000), (2, 16_000), (2, 10)];
        let (_permits, connections) = open(&taken, &all, &sizes);
        assert!(make_room(&all, &taken, claim(3, 5_000, 2_000)));
        assert_eq!(evicted(&connections), [false, false, true, false, false]);
        // A connection that needs more than others take evicts none.
        assert!(!make_room(&all, &taken, claim(2, 15_000, 1_000)));
        assert!(!make_room(&all, &taken, claim(3, 0, 20_001)));
        assert!(!make_room(&all, &taken, claim(1, 1_000, 44_000)));
        assert_eq!(evicted(&connections), [false, false, true, false, false]);
    }

    #[test]
    fn a_smaller_connection_evicts_the_largest_of_its_own_address() {
        let (taken, all) = (FairLimiter::new(1 << 20), Evictables::default());
        let (_permits, connections) = open(&taken, &all, &[(1, 30), (2, 5_000), (2, 1_000), (2, 1_000)]);
        assert!(make_room(&all, &taken, claim(2, 500, 400)));
        assert_eq!(evicted(&connections), [false, true, false, false]);
        assert!(!make_room(&all, &taken, claim(2, 600, 400)), "as much as another one");
        assert!(make_room(&all, &taken, claim(2, 599, 400)));
        assert_eq!(evicted(&connections), [false, true, true, false]);
    }

    #[test]
    fn a_new_connection_and_its_first_call_evict_the_oldest_of_those_that_take_as_much() {
        let (taken, all) = (FairLimiter::new(1 << 20), Evictables::default());
        let (_permits, connections) = open(&taken, &all, &[1, 2, 3, 4, 4].map(|last| (last, CONNECTION)));
        // Those of the address that has the most come first.
        assert!(make_room(&all, &taken, new(5)));
        assert_eq!(evicted(&connections), [false, false, false, true, false]);
        assert!(make_room(&all, &taken, new(5)));
        assert_eq!(evicted(&connections), [false, false, false, true, true]);
        assert!(make_room(&all, &taken, claim(5, 0, 4_000)));
        assert!(make_room(&all, &taken, new(3)));
        assert_eq!(evicted(&connections), [true, true, false, true, true]);
        // Of the own address, where others take less.
        let (_more, _) = open(&taken, &all, &[(3, CONNECTION)]);
        assert!(make_room(&all, &taken, new(3)));
        assert_eq!(evicted(&connections), [true, true, true, true, true]);
    }

    #[test]
    fn connections_that_are_closing_leave_room_before_others_are_evicted() {
        let (taken, all) = (FairLimiter::new(1 << 20), Evictables::default());
        let (_permits, mut connections) = open(&taken, &all, &[(1, 5 * CONNECTION), (1, 4 * CONNECTION)]);
        for _ in 0..5 {
            assert!(all.make_room(&taken, new(2)));
            assert_eq!(evicted(&connections), [true, false]);
        }
        assert!(all.make_room(&taken, new(2)));
        assert_eq!(evicted(&connections), [true, true]);
        connections.remove(0);
        let closing = all.closing();
        assert_eq!((closing.bytes, closing.granted), (4 * CONNECTION, CONNECTION));
    }

    #[test]
    fn connections_that_have_ended_are_forgotten() {
        let all = Evictables::default();
        let kept = all.add(address(1));
        for _ in 0..1_000 {
            all.add(address(2));
        }
        let open = all.all.lock().unwrap();
        assert!(open.len() <= 8 && open.first().unwrap().1.ptr_eq(&Arc::downgrade(&kept)), "{}", open.len());
    }
}
