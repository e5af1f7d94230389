//! A limiter with a fixed number of permits, shared fairly: no key may hold more than are left to all
//! others. A single key gets half of them, the next one half of the rest, so a new key always gets some.
//! Work takes one permit, memory one per byte. Called by everything that accepts work for callers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{Account, Caller, PeerNetwork};

/// Whose share work counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An authenticated caller's account, with any of its credentials.
    Account(Account),
    /// A peer before authentication; `None` when its address is not known.
    Peer(Option<PeerNetwork>),
}

impl ClientKey {
    /// Returns the key of a peer at this address, or at an unknown one.
    #[must_use]
    pub fn peer(address: Option<IpAddr>) -> Self {
        Self::Peer(address.map(PeerNetwork::from))
    }
}

impl From<&Caller> for ClientKey {
    fn from(caller: &Caller) -> Self {
        Self::Account(caller.account())
    }
}

/// The limiter; clones share its permits.
#[derive(Debug)]
pub struct FairLimiter<K>(Arc<Inner<K>>);

impl<K> Clone for FairLimiter<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<K> {
    permits: usize,
    /// One key may hold `lenience.0` times the permits left to others, plus `lenience.1`.
    lenience: (usize, usize),
    taken: Mutex<Taken<K>>,
}

/// The permits held by each key. An entry is removed with its last permit, so there are never more
/// entries than permits.
#[derive(Debug)]
pub(super) struct Taken<K> {
    total: usize,
    by_key: HashMap<K, Held>,
    /// The keys by their permits, and by age where these are equal; of a limiter that can have them given back.
    ranks: Option<BTreeMap<Rank, K>>,
    /// How many entries there have been.
    entries: u64,
}

/// The permits of a key, and the number of its entry.
#[derive(Debug, Clone, Copy)]
struct Held {
    permits: usize,
    entry: u64,
}

/// Sorts keys: more permits are greater, and of as many the older entry.
type Rank = (usize, Reverse<u64>);

/// Why no permit is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All permits are taken.
    #[error("too much work is waiting already")]
    Full,
    /// The key holds as many as are left to all others.
    #[error("this caller has more work waiting than its fair share")]
    OverShare,
}

/// One or more permits, returned when dropped.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Clone> {
    inner: Arc<Inner<K>>,
    key: K,
    number: usize,
}

impl<K: Hash + Eq + Clone> FairLimiter<K> {
    /// Creates a limiter with this many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self::of(permits, (1, 0), None)
    }

    /// Creates a limiter for keys that many clients usually share, such as addresses: a key may
    /// hold seven times as many permits as are left to all others, plus seven.
    #[must_use]
    pub fn lenient(permits: usize) -> Self {
        Self::of(permits, (7, 7), None)
    }

    /// Creates a limiter for keys of which the greediest can be made to give permits back: a key may hold seven
    /// times as many permits as are left to all others.
    #[must_use]
    pub fn reclaimable(permits: usize) -> Self {
        Self::of(permits, (7, 0), Some(BTreeMap::new()))
    }

    fn of(permits: usize, lenience: (usize, usize), ranks: Option<BTreeMap<Rank, K>>) -> Self {
        let taken = Mutex::new(Taken { total: 0, by_key: HashMap::new(), ranks, entries: 0 });
        Self(Arc::new(Inner { permits, lenience, taken }))
    }

    /// Takes one permit.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn take(&self, key: K) -> Result<Permit<K>, Refused> {
        self.take_many(key, 1)
    }

    /// Takes `number` permits at once, or none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn take_many(&self, key: K, number: usize) -> Result<Permit<K>, Refused> {
        self.0.take(&key, number)?;
        Ok(Permit { inner: Arc::clone(&self.0), key, number })
    }

    /// Returns an empty permit for this key, which can grow later.
    #[must_use]
    pub fn empty(&self, key: K) -> Permit<K> {
        Permit { inner: Arc::clone(&self.0), key, number: 0 }
    }

    /// Returns the number of permits taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.lock().total
    }

    /// Returns how many permits a key holds.
    #[must_use]
    pub fn held(&self, key: &K) -> usize {
        self.0.lock().held(key)
    }

    /// Calls `read` with the permits of all keys, which do not change meanwhile.
    pub(super) fn read<R>(&self, read: impl FnOnce(&Taken<K>) -> R) -> R {
        read(&self.0.lock())
    }
}

impl<K: Hash + Eq + Clone> Taken<K> {
    /// Returns how many permits a key holds.
    pub(super) fn held(&self, key: &K) -> usize {
        self.by_key.get(key).map_or(0, |held| held.permits)
    }

    /// Iterates over the keys and their permits, from the one with the most; empty unless they are reclaimable.
    pub(super) fn greediest_first(&self) -> impl Iterator<Item = (&K, usize)> {
        self.ranks.iter().flatten().rev().map(|((permits, _), key)| (key, *permits))
    }

    /// Sets how many permits a key holds.
    fn set(&mut self, key: &K, permits: usize) {
        let before = self.by_key.get(key).copied();
        let entry = before.map_or(self.entries, |held| held.entry);
        if before.is_none() {
            self.entries += 1;
        }
        self.total = self.total + permits - before.map_or(0, |held| held.permits);
        if let Some(ranks) = &mut self.ranks {
            if let Some(before) = before {
                ranks.remove(&(before.permits, Reverse(entry)));
            }
            if permits > 0 {
                ranks.insert((permits, Reverse(entry)), key.clone());
            }
        }
        if permits > 0 {
            self.by_key.insert(key.clone(), Held { permits, entry });
        } else {
            self.by_key.remove(key);
        }
    }
}

impl<K: Hash + Eq + Clone> Inner<K> {
    fn take(&self, key: &K, number: usize) -> Result<(), Refused> {
        let mut taken = self.lock();
        let left = self.permits.saturating_sub(taken.total);
        let held = taken.held(key);
        let (times, plus) = self.lenience;
        if number == 0 {
            return Ok(());
        }
        if number > left {
            return Err(Refused::Full);
        }
        if held + number > left.saturating_mul(times).saturating_add(plus) {
            return Err(Refused::OverShare);
        }
        taken.set(key, held + number);
        Ok(())
    }
}

impl<K: Hash + Eq + Clone> Permit<K> {
    /// Takes `number` more permits, or none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn grow(&mut self, number: usize) -> Result<(), Refused> {
        self.inner.take(&self.key, number)?;
        self.number += number;
        Ok(())
    }

    /// Takes `number` more permits even if none are left: another holder is about to return as many.
    pub fn overdraw(&mut self, number: usize) {
        let mut taken = self.inner.lock();
        let held = taken.held(&self.key);
        taken.set(&self.key, held + number);
        drop(taken);
        self.number += number;
    }

    /// Returns whose share it counts against.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K> Inner<K> {
    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> Permit<K> {
    /// Changes the permit to `number` and returns the rest. A larger number is granted, too, since
    /// what it stands for already exists.
    pub fn shrink(&mut self, number: usize) {
        if number != self.number {
            let mut taken = self.inner.lock();
            let held = taken.held(&self.key);
            taken.set(&self.key, held + number - self.number);
            drop(taken);
            self.number = number;
        }
    }
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes permits until refused.
    fn greedy(shares: &FairLimiter<&'static str>, key: &'static str) -> (Vec<Permit<&'static str>>, Refused) {
        let mut held = Vec::new();
        loop {
            match shares.take(key) {
                Ok(permit) => held.push(permit),
                Err(refused) => return (held, refused),
            }
        }
    }

    #[test]
    fn a_greedy_key_leaves_as_many_permits_as_it_has() {
        let shares = FairLimiter::new(16);
        let (first, refused) = greedy(&shares, "a");
        assert_eq!((first.len(), refused), (8, Refused::OverShare));
        let (second, refused) = greedy(&shares, "b");
        assert_eq!((second.len(), refused), (4, Refused::OverShare));
        assert!(shares.take("c").is_ok());
    }

    #[test]
    fn a_lenient_limiter_lets_a_key_take_most_permits_but_not_all() {
        assert_eq!(greedy(&FairLimiter::lenient(2048), "a").0.len(), 1793);
        let shares = FairLimiter::lenient(256);
        let (first, refused) = greedy(&shares, "a");
        assert_eq!((first.len(), refused), (225, Refused::OverShare));
        let (second, _) = greedy(&shares, "b");
        assert_eq!(second.len(), 28);
        assert!(shares.take("c").is_ok());
    }

    #[test]
    fn several_permits_are_shared_like_single_ones_and_can_be_released_in_part() {
        let shares = FairLimiter::new(100);
        let mut first = shares.take_many("a", 50).unwrap();
        assert_eq!(first.grow(26).unwrap_err(), Refused::OverShare);
        first.grow(0).unwrap();
        first.shrink(60);
        assert_eq!(shares.take_many("a", 1).unwrap_err(), Refused::OverShare);
        assert_eq!(shares.take_many("b", 41).unwrap_err(), Refused::Full);
        first.shrink(10);
        assert_eq!(shares.taken(), 10);
        let second = shares.take_many("a", 80).unwrap();
        drop((first, second));
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn an_overdraft_counts_until_it_is_returned() {
        let shares = FairLimiter::new(10);
        let _first = shares.take_many("a", 5).unwrap();
        let mut second = shares.empty("b");
        second.overdraw(7);
        assert_eq!((shares.taken(), shares.held(&"b")), (12, 7));
        assert_eq!(shares.read(|taken| (taken.held(&"a"), taken.held(&"b"), taken.held(&"c"))), (5, 7, 0));
        assert_eq!(shares.take("c").unwrap_err(), Refused::Full);
        drop(second);
        assert_eq!((shares.taken(), shares.held(&"b")), (5, 0));
    }

    #[test]
    fn reclaimable_permits_are_ordered_by_their_number_then_by_age() {
        let shares = FairLimiter::reclaimable(1_000);
        let mut held =
            [("a", 5), ("b", 7), ("c", 5)].map(|(key, number)| shares.take_many(key, number).unwrap());
        let order = || shares.read(|taken| taken.greediest_first().map(|(key, _)| *key).collect::<String>());
        assert_eq!(order(), "bac");
        held[2].grow(1).unwrap();
        assert_eq!(order(), "bca");
        held[1].shrink(0);
        held[1].overdraw(6);
        assert_eq!(order(), "cba");
        drop(held);
        assert_eq!((order(), shares.taken()), (String::new(), 0));
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let peer = |text: &str| ClientKey::peer(Some(text.parse().unwrap()));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.7"), peer("192.0.2.7"));
        assert_ne!(peer("192.0.2.8"), peer("192.0.2.7"));
    }

    #[test]
    fn released_permits_return_and_all_can_be_taken() {
        let shares = FairLimiter::new(2);
        let a = shares.take("a").unwrap();
        let b = shares.take("b").unwrap();
        assert_eq!(shares.take("c").unwrap_err(), Refused::Full);
        drop((a, b));
        let taken = shares.0.lock();
        assert_eq!((taken.total, taken.by_key.len()), (0, 0));
    }
}
