//! A lock per request id: of concurrent retries the first does the work, and the others then find its result
//! with one lookup. Called by creation and rotation. Between replicas the request's row orders them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fair_limiter::{self, ClientKey, FairLimiter, Refused};
use crate::runtime::deadline;

/// How many requests may hold a lock or wait for one, shared fairly among callers.
const MAX_WAITING: usize = 4096;

/// How long a caller waits.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The key of a request.
type Key = [u8; 32];

/// The locks by key.
#[derive(Debug)]
pub(crate) struct KeyedMutex {
    limiter: FairLimiter<ClientKey>,
    /// An entry is removed when the last of its requests leaves.
    locks: Mutex<HashMap<Key, (Arc<Semaphore>, usize)>>,
}

/// One holder or waiter of a key's lock, removed when dropped.
struct Waiting<'a> {
    mutex: &'a KeyedMutex,
    key: Key,
    lock: Arc<Semaphore>,
    _share: fair_limiter::Permit<ClientKey>,
}

/// A held lock, released when dropped.
pub(crate) struct KeyedGuard<'a> {
    // Dropped first: the permit belongs to the semaphore that `_waiting` keeps.
    _permit: OwnedSemaphorePermit,
    _waiting: Waiting<'a>,
}

impl KeyedMutex {
    pub(crate) fn new() -> Self {
        Self { limiter: FairLimiter::new(MAX_WAITING), locks: Mutex::default() }
    }

    /// Waits until no other retry of the caller's request runs.
    pub(crate) async fn take(&self, caller: ClientKey, key: Key) -> Result<KeyedGuard<'_>, Refused> {
        let share = self.limiter.take(caller)?;
        let waiting = self.enter(share, key);
        let acquired =
            tokio::time::timeout(deadline::at_most(LOCK_TIMEOUT), Arc::clone(&waiting.lock).acquire_owned());
        let permit = acquired.await.map_err(|_| Refused::Full)?.map_err(|_| Refused::Full)?;
        Ok(KeyedGuard { _permit: permit, _waiting: waiting })
    }

    fn enter(&self, share: fair_limiter::Permit<ClientKey>, key: Key) -> Waiting<'_> {
        let mut locks = self.lock();
        let (lock, users) = locks.entry(key).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *users = users.saturating_add(1);
        Waiting { mutex: self, key, lock: Arc::clone(lock), _share: share }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Arc<Semaphore>, usize)>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut locks = self.mutex.lock();
        if let Some((_, users)) = locks.get_mut(&self.key) {
            *users = users.saturating_sub(1);
            if *users == 0 {
                locks.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_request_at_a_time_has_the_lock_and_no_entry_is_left_behind() {
        let mutex = KeyedMutex::new();
        let caller = ClientKey::Peer(None);
        let first = mutex.take(caller, [1; 32]).await.unwrap();
        let other = mutex.take(caller, [2; 32]).await.unwrap();
        let mut second = Box::pin(mutex.take(caller, [1; 32]));
        let mut abandoned = Box::pin(mutex.take(caller, [1; 32]));
        assert!(now(&mut second).await.is_none() && now(&mut abandoned).await.is_none(), "they wait");
        drop(abandoned);
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(mutex.lock().is_empty());
    }

    async fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
