//! Chooses the connection to close when the memory for requests is full: the largest one of an unauthenticated peer in
//! the network that takes the most. So a flood closes its own connections, and not those of new clients. A network that
//! has its share closes its own largest connection for a smaller one: new clients in the flood's network are served, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;

use atomic_waker::AtomicWaker;

use super::fair_limiter::{FairLimiter, Taken};
use crate::domain::PeerNetwork;

/// The bytes of an unauthenticated peer's connection before its first request: its tasks, buffers and tables.
pub(crate) const CONNECTION: usize = 20 * 1024;

/// The number of the listener that has accepted a connection.
pub(super) type Listener = usize;

/// A connection that may be evicted while its peer is unauthenticated.
#[derive(Debug)]
pub(crate) struct Evictable {
    network: PeerNetwork,
    listener: Listener,
    /// The number of connections that were added before it.
    number: u64,
    /// What it takes, or took when it was evicted; changed only with the index.
    taken: AtomicUsize,
    evicted: AtomicBool,
    waker: AtomicWaker,
    index: Arc<Mutex<Index>>,
}

/// The connections of all unauthenticated peers that are not evicted, by network. So none has to be searched for.
#[derive(Debug, Default)]
struct Index {
    networks: HashMap<PeerNetwork, Connections>,
    added: u64,
    closing: Closing,
}

/// The connections of a network: larger ones are greater, and of as large ones the oldest.
type Connections = BTreeMap<(usize, Reverse<u64>), (Listener, Weak<Evictable>)>;

/// The bytes of evicted connections that are not closed yet, and those that were granted in their place.
#[derive(Debug, Default)]
struct Closing {
    bytes: usize,
    granted: usize,
}

impl Evictable {
    /// Sets how many bytes the connection takes.
    pub(crate) fn set_taken(&self, bytes: usize) {
        let mut index = lock(&self.index);
        if let Some(own) = index.remove(self) {
            self.taken.store(bytes, Ordering::Relaxed);
            index.insert(self, own);
        }
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
        let mut index = lock(&self.index);
        if index.remove(self).is_some() {
            self.evicted.store(true, Ordering::Release);
            let bytes = self.taken.load(Ordering::Relaxed);
            index.closing.bytes = index.closing.bytes.saturating_add(bytes);
        }
        drop(index);
        // Without the lock, since that wakes a task.
        self.waker.wake();
    }

    fn key(&self) -> (usize, Reverse<u64>) {
        (self.taken.load(Ordering::Relaxed), Reverse(self.number))
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        let mut index = lock(&self.index);
        if self.is_evicted() {
            let bytes = self.taken.load(Ordering::Relaxed);
            index.closing.bytes = index.closing.bytes.saturating_sub(bytes);
            index.closing.granted = index.closing.granted.saturating_sub(bytes);
        } else {
            index.remove(self);
        }
    }
}

impl Index {
    fn insert(&mut self, one: &Evictable, own: Weak<Evictable>) {
        self.networks.entry(one.network).or_default().insert(one.key(), (one.listener, own));
    }

    fn remove(&mut self, one: &Evictable) -> Option<Weak<Evictable>> {
        let connections = self.networks.get_mut(&one.network)?;
        let removed = connections.remove(&one.key());
        if connections.is_empty() {
            self.networks.remove(&one.network);
        }
        removed.map(|(_, own)| own)
    }

    /// Returns the largest connection of a network, if it takes as much as `least`; of a listener, if one is given.
    fn largest(
        &self,
        network: &PeerNetwork,
        least: usize,
        listener: Option<Listener>,
    ) -> Option<Arc<Evictable>> {
        let connections = self.networks.get(network)?.range((least, Reverse(u64::MAX))..).rev();
        let mut here = connections.filter(|(_, (of, _))| listener.is_none_or(|listener| listener == *of));
        // One that is being dropped is no longer counted.
        here.find_map(|(_, (_, one))| one.upgrade())
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that a connection needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) network: PeerNetwork,
    /// The listener whose connection has to make room; `None`: any.
    pub(super) listener: Option<Listener>,
    /// What it takes already; 0: it is new.
    pub(super) own: usize,
    pub(super) more: usize,
}

/// The connections of all unauthenticated peers.
#[derive(Debug, Default)]
pub(super) struct Evictables(Arc<Mutex<Index>>);

impl Evictables {
    /// Adds a connection of this network that takes `bytes`, until the result is dropped.
    pub(super) fn add(&self, listener: Listener, network: PeerNetwork, bytes: usize) -> Arc<Evictable> {
        let mut index = lock(&self.0);
        let added = Arc::new(Evictable {
            network,
            listener,
            number: index.added,
            taken: AtomicUsize::new(bytes),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            index: Arc::clone(&self.0),
        });
        index.added = index.added.saturating_add(1);
        index.insert(&added, Arc::downgrade(&added));
        added
    }

    /// Evicts a connection for `claim`, unless one that is closing leaves room; returns whether there is room soon. So many
    /// new connections at once evict no more than they need.
    pub(super) fn make_room(&self, taken: &FairLimiter<PeerNetwork>, claim: Claim) -> bool {
        if !self.grant(claim.more) {
            if !self.evict(taken, claim) {
                return false;
            }
            // Others may have been granted its bytes; the next claim evicts another one for those.
            let mut index = lock(&self.0);
            index.closing.granted = index.closing.granted.saturating_add(claim.more);
        }
        true
    }

    /// Evicts a connection for `claim`; returns whether there was one.
    pub(super) fn evict(&self, taken: &FairLimiter<PeerNetwork>, claim: Claim) -> bool {
        let largest = taken.read(|taken| self.largest(taken, claim));
        largest.inspect(|largest| largest.evict()).is_some()
    }

    /// Grants bytes of the connections that are closing, if they have as many left.
    fn grant(&self, bytes: usize) -> bool {
        let closing = &mut lock(&self.0).closing;
        let granted = closing.granted.saturating_add(bytes);
        let fits = granted <= closing.bytes;
        if fits {
            closing.granted = granted;
        }
        fits
    }

    /// Returns the largest connection that may be evicted for `claim`: of the network that takes the most, and of
    /// several that are equal the oldest.
    fn largest(&self, taken: &Taken<PeerNetwork>, claim: Claim) -> Option<Arc<Evictable>> {
        let own = taken.held(&claim.network);
        let (connection, network) = (claim.least(claim.own), claim.least(own));
        let index = lock(&self.0);
        let greedy = taken.greediest_first().take_while(|(_, held)| *held >= own.min(network));
        let mut largest = greedy.filter_map(|(of, held)| match of {
            of if *of == claim.network => index.largest(of, connection, claim.listener),
            of if held >= network => index.largest(of, claim.more, claim.listener),
            _ => None,
        });
        largest.next()
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

    fn network(last: u8) -> PeerNetwork {
        std::net::IpAddr::from([10, 0, 0, last]).into()
    }

    /// A claim of a connection that has `own` bytes beyond its first ones.
    fn claim(last: u8, own: usize, more: usize) -> Claim {
        Claim { network: network(last), listener: None, own: CONNECTION + own, more }
    }

    fn new(last: u8) -> Claim {
        Claim { network: network(last), listener: None, own: 0, more: CONNECTION }
    }

    /// Opens connections of these networks and sizes; returns them with their permits.
    fn open(
        taken: &FairLimiter<PeerNetwork>,
        all: &Evictables,
        sizes: &[(u8, usize)],
    ) -> (Vec<Permit<PeerNetwork>>, Vec<Arc<Evictable>>) {
        let open = sizes.iter().map(|(last, bytes)| {
            (taken.take_many(network(*last), *bytes).unwrap(), all.add(0, network(*last), *bytes))
        });
        open.unzip()
    }

    /// Makes room, and forgets what was evicted for it as if it were closed.
    fn make_room(all: &Evictables, taken: &FairLimiter<PeerNetwork>, claim: Claim) -> bool {
        let made = all.make_room(taken, claim);
        lock(&all.0).closing = Closing::default();
        made
    }

    fn evicted(connections: &[Arc<Evictable>]) -> Vec<bool> {
        connections.iter().map(|one| one.is_evicted()).collect()
    }

    #[test]
    fn the_largest_connection_of_the_largest_network_is_evicted() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
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
    fn a_smaller_connection_evicts_the_largest_of_its_own_network() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
        let (_permits, connections) = open(&taken, &all, &[(1, 30), (2, 5_000), (2, 1_000), (2, 1_000)]);
        assert!(make_room(&all, &taken, claim(2, 500, 400)));
        assert_eq!(evicted(&connections), [false, true, false, false]);
        assert!(!make_room(&all, &taken, claim(2, 600, 400)), "as much as another one");
        assert!(make_room(&all, &taken, claim(2, 599, 400)));
        assert_eq!(evicted(&connections), [false, true, true, false]);
    }

    #[test]
    fn a_new_connection_and_its_first_call_evict_the_oldest_of_those_that_take_as_much() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
        let (_permits, connections) = open(&taken, &all, &[1, 2, 3, 4, 4].map(|last| (last, CONNECTION)));
        // Those of the network that has the most come first.
        assert!(make_room(&all, &taken, new(5)));
        assert_eq!(evicted(&connections), [false, false, false, true, false]);
        assert!(make_room(&all, &taken, new(5)));
        assert_eq!(evicted(&connections), [false, false, false, true, true]);
        assert!(make_room(&all, &taken, claim(5, 0, 4_000)));
        assert!(make_room(&all, &taken, new(3)));
        assert_eq!(evicted(&connections), [true, true, false, true, true]);
        // Of the own network, where others take less.
        let (_more, _) = open(&taken, &all, &[(3, CONNECTION)]);
        assert!(make_room(&all, &taken, new(3)));
        assert_eq!(evicted(&connections), [true, true, true, true, true]);
    }

    #[test]
    fn connections_that_are_closing_leave_room_before_others_are_evicted() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
        let (_permits, mut connections) = open(&taken, &all, &[(1, 5 * CONNECTION), (1, 4 * CONNECTION)]);
        for _ in 0..5 {
            assert!(all.make_room(&taken, new(2)));
            assert_eq!(evicted(&connections), [true, false]);
        }
        assert!(all.make_room(&taken, new(2)));
        assert_eq!(evicted(&connections), [true, true]);
        connections.remove(0);
        let closing = &lock(&all.0).closing;
        assert_eq!((closing.bytes, closing.granted), (4 * CONNECTION, CONNECTION));
    }

    #[test]
    fn a_connection_that_grows_or_shrinks_changes_its_rank() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
        let (_permits, connections) = open(&taken, &all, &[(1, 400), (1, 300), (1, 200)]);
        connections[2].set_taken(500);
        connections[0].set_taken(100);
        assert!(make_room(&all, &taken, claim(2, 0, 10)));
        assert_eq!(evicted(&connections), [false, false, true]);
        connections[2].set_taken(1_000);
        assert!(make_room(&all, &taken, claim(2, 0, 10)));
        assert_eq!(evicted(&connections), [false, true, true]);
    }

    #[test]
    fn a_new_connection_of_a_listener_evicts_one_of_that_listener() {
        let (taken, all) = (FairLimiter::reclaimable(1 << 20), Evictables::default());
        let (_permits, larger) = open(&taken, &all, &[(1, 2 * CONNECTION)]);
        let here = all.add(1, network(1), CONNECTION);
        let claim = |last| Claim { listener: Some(1), ..new(last) };
        assert!(all.evict(&taken, claim(2)));
        assert_eq!((here.is_evicted(), larger[0].is_evicted()), (true, false));
        assert!(!all.evict(&taken, claim(2)));
    }

    #[test]
    fn connections_that_have_ended_are_forgotten() {
        let all = Evictables::default();
        let kept = all.add(0, network(1), 10);
        for _ in 0..1_000 {
            all.add(0, network(2), 10);
        }
        let index = lock(&all.0);
        assert_eq!(index.networks.keys().collect::<Vec<_>>(), [&kept.network]);
        assert_eq!(index.networks.values().map(BTreeMap::len).sum::<usize>(), 1);
        drop(index);
    }
}
