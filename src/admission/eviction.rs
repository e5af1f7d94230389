//! Chooses the connection to close when the memory for requests is full: the largest one of an unauthenticated peer at
//! the address that takes the most. So a flood closes its own connections, and not those of new clients.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

use atomic_waker::AtomicWaker;

use super::fair_limiter::FairLimiter;

/// A connection that may be evicted while its peer is unauthenticated.
#[derive(Debug, Default)]
pub(crate) struct Evictable {
    taken: AtomicUsize,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Evictable {
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

    fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The connections of all unauthenticated peers, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Evictables(Mutex<Vec<(IpAddr, Weak<Evictable>)>>);

impl Evictables {
    /// Adds a connection of this address, until the result is dropped.
    pub(super) fn add(&self, address: IpAddr) -> Arc<Evictable> {
        let added = Arc::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were dropped are removed before the list grows, so adding takes constant time on average.
        if all.len() == all.capacity() {
            all.retain(|(_, one)| one.strong_count() > 0);
        }
        all.push((address, Arc::downgrade(&added)));
        added
    }

    /// Evicts a connection that takes at least `bytes`, at an address that takes more than `address` would with them;
    /// returns whether there was one.
    pub(super) fn make_room(&self, taken: &FairLimiter<IpAddr>, address: IpAddr, bytes: usize) -> bool {
        let with_them = taken.held(&address).saturating_add(bytes);
        // Usually so in a flood, whose refusals must stay cheap.
        if taken.greatest() <= with_them {
            return false;
        }
        // Evicted without the lock, since that wakes a task.
        let largest = self.largest(taken, address, bytes).filter(|(held, _)| *held > with_them);
        largest.inspect(|(_, one)| one.evict()).is_some()
    }

    /// Returns the largest connection of at least `bytes` at another address, and what that address takes. The address
    /// that takes the most comes first, and of several connections as large the oldest.
    fn largest(
        &self,
        taken: &FairLimiter<IpAddr>,
        address: IpAddr,
        bytes: usize,
    ) -> Option<(usize, Arc<Evictable>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.iter().rev().filter(|(other, _)| *other != address);
        let large = others.filter_map(|(other, one)| {
            let one = one.upgrade()?;
            let size = one.taken.load(Ordering::Relaxed);
            (size >= bytes.max(1) && !one.is_evicted()).then(|| (taken.held(other), size, one))
        });
        // The last of several that are equal: in reverse, the oldest.
        large.max_by_key(|(held, size, _)| (*held, *size)).map(|(held, _, one)| (held, one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_largest_connection_of_the_largest_address_is_evicted() {
        let (taken, all) = (FairLimiter::new(10_000), Evictables::default());
        let mut permits = Vec::new();
        let mut open = |last, bytes| {
            permits.push(taken.take_many(address(last), bytes).unwrap());
            let one = all.add(address(last));
            one.set_taken(bytes);
            one
        };
        let connections = [open(1, 200), open(2, 150), open(2, 160), open(2, 160), open(2, 10)];
        let evicted = || connections.iter().map(|one| one.is_evicted()).collect::<Vec<_>>();
        assert!(all.make_room(&taken, address(3), 20));
        assert_eq!(evicted(), [false, false, true, false, false]);
        // An address that takes as much as the others, or asks for more than one of them takes, evicts nobody.
        assert!(!all.make_room(&taken, address(2), 20));
        assert!(!all.make_room(&taken, address(3), 201));
        assert!(!all.make_room(&taken, address(1), 280));
        assert_eq!(evicted(), [false, false, true, false, false]);
    }

    #[test]
    fn connections_that_have_ended_are_forgotten() {
        let all = Evictables::default();
        let kept = all.add(address(1));
        for _ in 0..1_000 {
            all.add(address(2));
        }
        let open = all.0.lock().unwrap();
        assert!(open.len() <= 8 && open.first().unwrap().1.ptr_eq(&Arc::downgrade(&kept)), "{}", open.len());
    }
}
