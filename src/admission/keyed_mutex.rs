//! A lock per request id: of concurrent retries the first does the work, and the others then find its result
//! with one lookup. Called by creation and rotation. Between replicas the request's row orders them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fair_limiter::{self, ClientKey, FairLimiter, Refused};
use crate::runtime::deadline;

/// How many requests may hold a lock or wait for one, shared fairly among callers.
const PLACES: usize = 4096;

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The key of a request.
type Key = [u8; 32];

/// The locks by key.
#[derive(Debug)]
pub(crate) struct KeyedMutex {
    places: FairLimiter<ClientKey>,
    /// An entry is removed when the last of its requests leaves.
    turns: Mutex<HashMap<Key, (Arc<Semaphore>, usize)>>,
}

/// One holder or waiter of a key's lock, removed when dropped.
struct Waiting<'a> {
    turns: &'a KeyedMutex,
    key: Key,
    turn: Arc<Semaphore>,
    _share: fair_limiter::Permit<ClientKey>,
}

/// A held lock, released when dropped.
pub(crate) struct KeyedGuard<'a> {
    // Dropped first: the permit belongs to the semaphore that `_place` keeps.
    _permit: OwnedSemaphorePermit,
    _place: Waiting<'a>,
}

impl KeyedMutex {
    pub(crate) fn new() -> Self {
        Self { places: FairLimiter::new(PLACES), turns: Mutex::default() }
    }

    /// Waits until no other retry of the caller's request runs.
    pub(crate) async fn take(&self, caller: ClientKey, key: Key) -> Result<KeyedGuard<'_>, Refused> {
        let share = self.places.take(caller)?;
        let place = self.place(share, key);
        let waiting =
            tokio::time::timeout(deadline::at_most(PATIENCE), Arc::clone(&place.turn).acquire_owned());
        let permit = waiting.await.map_err(|_| Refused::Full)?.map_err(|_| Refused::Full)?;
        Ok(KeyedGuard { _permit: permit, _place: place })
    }

    fn place(&self, share: fair_limiter::Permit<ClientKey>, key: Key) -> Waiting<'_> {
        let mut turns = self.lock();
        let (turn, places) = turns.entry(key).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *places = places.saturating_add(1);
        Waiting { turns: self, key, turn: Arc::clone(turn), _share: share }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Arc<Semaphore>, usize)>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        if let Some((_, places)) = turns.get_mut(&self.key) {
            *places = places.saturating_sub(1);
            if *places == 0 {
                turns.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_request_has_its_turn_at_a_time_and_leaves_nothing_behind() {
        let turns = KeyedMutex::new();
        let caller = ClientKey::Peer(None);
        let first = turns.take(caller, [1; 32]).await.unwrap();
        let other = turns.take(caller, [2; 32]).await.unwrap();
        let mut second = Box::pin(turns.take(caller, [1; 32]));
        let mut abandoned = Box::pin(turns.take(caller, [1; 32]));
        assert!(now(&mut second).await.is_none() && now(&mut abandoned).await.is_none(), "they wait");
        drop(abandoned);
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(turns.lock().is_empty());
    }

    async fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
