//! A fair queue for a small number of permits, granted by key in round-robin order: a key with many
//! waiters waits behind its own, and a new key waits for at most one of each other. Used in front
//! of database connections. Knows nothing of its use.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::fair_limiter::Refused;
use crate::runtime::deadline;

/// How long a caller waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most waiters of one key: more could not be served within their deadlines.
const MAX_WAITING: usize = 256;

/// Grants permits; cheap to clone.
#[derive(Debug)]
pub struct FairQueue<K: Hash + Eq + Copy>(Arc<Inner<K>>);

impl<K: Hash + Eq + Copy> Clone for FairQueue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<K: Hash + Eq + Copy> {
    permits: usize,
    /// The most permits that one key holds at once.
    each: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K: Hash + Eq + Copy> {
    held: usize,
    /// An entry is removed when its key holds nothing and has no waiters.
    by_key: HashMap<K, Entry<K>>,
    /// The keys that have waiters, each once; the first is next.
    order: VecDeque<K>,
}

#[derive(Debug)]
struct Entry<K: Hash + Eq + Copy> {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Permit<K>>>,
}

/// A permit, returned when dropped.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Copy> {
    /// `None`: already returned.
    inner: Option<Arc<Inner<K>>>,
    key: K,
}

impl<K: Hash + Eq + Copy> FairQueue<K> {
    /// Creates a queue with this many permits (at least one), of which one key gets at most three quarters.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let permits = permits.max(1);
        let state = State { held: 0, by_key: HashMap::new(), order: VecDeque::new() };
        let each = (permits - permits.div_ceil(4)).max(1);
        Self(Arc::new(Inner { permits, each, state: Mutex::new(state) }))
    }

    /// Takes a permit if one is free for this key.
    #[must_use]
    pub fn try_acquire(&self, key: K) -> Option<Permit<K>> {
        let mut state = self.0.lock();
        if state.held >= self.0.permits {
            return None;
        }
        // No other key waits for it: free permits are granted at once.
        let entry = state.by_key.entry(key).or_default();
        if entry.held >= self.0.each {
            return None;
        }
        entry.held += 1;
        state.held += 1;
        Some(Permit { inner: Some(Arc::clone(&self.0)), key })
    }

    /// Waits for a permit, for at most 5 seconds.
    ///
    /// # Errors
    /// [`Refused`]: `OverShare` when 256 waiters of this key exist already, `Full` when no permit
    /// was granted in time.
    pub async fn acquire(&self, key: K) -> Result<Permit<K>, Refused> {
        let granted = self.0.ask(key)?;
        match tokio::time::timeout(deadline::at_most(PERMIT_TIMEOUT), granted).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refused::Full),
        }
    }
}

impl<K: Hash + Eq + Copy> Inner<K> {
    fn ask(self: &Arc<Self>, key: K) -> Result<oneshot::Receiver<Permit<K>>, Refused> {
        let (sender, granted) = oneshot::channel();
        {
            let mut state = self.lock();
            let entry = state.by_key.entry(key).or_default();
            if entry.waiting.len() >= MAX_WAITING {
                entry.waiting.retain(|sender| !sender.is_closed());
            }
            if entry.waiting.len() >= MAX_WAITING {
                return Err(Refused::OverShare);
            }
            entry.waiting.push_back(sender);
            if entry.waiting.len() == 1 {
                state.order.push_back(key);
            }
        }
        self.grant();
        Ok(granted)
    }

    /// Grants free permits to waiters.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((key, sender)) = self.lock().next(self.permits, self.each) else { return };
            let permit = Permit { inner: Some(Arc::clone(self)), key };
            if let Err(mut permit) = sender.send(permit) {
                // The waiter has gone just now. The permit is returned by hand, since dropping it
                // would call this function again.
                permit.inner = None;
                self.lock().give_back(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Copy> Default for Entry<K> {
    fn default() -> Self {
        Self { held: 0, waiting: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Copy> State<K> {
    /// Takes a permit for the next waiter whose key is below its maximum.
    fn next(&mut self, permits: usize, each: usize) -> Option<(K, oneshot::Sender<Permit<K>>)> {
        if self.held >= permits {
            return None;
        }
        for _ in 0..self.order.len() {
            let key = self.order.pop_front()?;
            let Some(entry) = self.by_key.get_mut(&key) else { continue };
            if entry.held >= each {
                self.order.push_back(key);
                continue;
            }
            let next = std::iter::from_fn(|| entry.waiting.pop_front()).find(|sender| !sender.is_closed());
            if !entry.waiting.is_empty() {
                self.order.push_back(key);
            }
            if let Some(sender) = next {
                entry.held += 1;
                self.held += 1;
                return Some((key, sender));
            }
            self.tidy(key);
        }
        None
    }

    fn give_back(&mut self, key: K) {
        self.held -= 1;
        if let Some(entry) = self.by_key.get_mut(&key) {
            entry.held -= 1;
        }
        self.tidy(key);
    }

    fn tidy(&mut self, key: K) {
        if self.by_key.get(&key).is_some_and(|entry| entry.held == 0 && entry.waiting.is_empty()) {
            self.by_key.remove(&key);
        }
    }
}

impl<K: Hash + Eq + Copy> Drop for Permit<K> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.lock().give_back(self.key);
            inner.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a permit in a separate task, which has already started to wait.
    async fn waiting(limiter: &FairQueue<char>, key: char) -> tokio::task::JoinHandle<Permit<char>> {
        let limiter = limiter.clone();
        let waiting = tokio::spawn(async move { limiter.acquire(key).await.unwrap() });
        tokio::task::yield_now().await;
        waiting
    }

    #[tokio::test]
    async fn one_key_leaves_a_quarter_of_the_permits_and_later_keys_take_turns() {
        let limiter = FairQueue::new(4);
        let first = limiter.acquire('a').await.unwrap();
        let second = limiter.acquire('a').await.unwrap();
        let third = limiter.try_acquire('a').unwrap();
        assert!(limiter.try_acquire('a').is_none());
        let [next, last] = [waiting(&limiter, 'a').await, waiting(&limiter, 'a').await];
        let other = limiter.acquire('b').await.unwrap();
        let modest = waiting(&limiter, 'c').await;
        drop(second);
        let next = next.await.unwrap();
        drop(first);
        // Not the fifth waiter of the greedy key, although it came earlier.
        let modest = modest.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!last.is_finished());
        drop((third, next, other, modest));
        drop(last.await.unwrap());
        let state = limiter.0.lock();
        assert_eq!((state.held, state.by_key.len(), state.order.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_times_out_or_is_dropped_is_skipped() {
        let limiter = FairQueue::new(1);
        let held = limiter.acquire('a').await.unwrap();
        waiting(&limiter, 'b').await.abort();
        assert_eq!(limiter.acquire('a').await.unwrap_err(), Refused::Full);
        let last = waiting(&limiter, 'a').await;
        drop(held);
        drop(last.await.unwrap());
        let state = limiter.0.lock();
        assert_eq!((state.held, state.by_key.len(), state.order.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_key_with_too_many_waiters_is_refused_at_once_and_others_are_not() {
        let limiter = FairQueue::new(1);
        let held = limiter.acquire('a').await.unwrap();
        let served = |key| {
            let limiter = limiter.clone();
            tokio::spawn(async move { drop(limiter.acquire(key).await.unwrap()) })
        };
        let mut crowd = Vec::new();
        for _ in 0..MAX_WAITING {
            crowd.push(served('a'));
        }
        while limiter.0.lock().by_key.get(&'a').is_none_or(|entry| entry.waiting.len() < MAX_WAITING) {
            tokio::task::yield_now().await;
        }
        assert_eq!(limiter.acquire('a').await.unwrap_err(), Refused::OverShare);
        let other = served('b');
        crowd.pop().unwrap().abort();
        tokio::task::yield_now().await;
        // This slot belonged to the waiter that went away.
        let late = served('a');
        tokio::task::yield_now().await;
        drop(held);
        for waiter in crowd.into_iter().chain([other, late]) {
            waiter.await.unwrap();
        }
    }
}
