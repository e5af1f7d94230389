//! Retries of one request take turns: the first does the work, and those that come meanwhile find it done, at
//! the price of a look. Called by creation and rotation. Between replicas the request's row does the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fair_limiter::{self, ClientKey, FairLimiter, Refused};
use crate::runtime::deadline;

/// How many requests may have their turn or wait for it, fairly shared among callers.
const PLACES: usize = 4096;

/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request, by what it is found again by.
type Key = [u8; 32];

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct KeyedMutex {
    places: FairLimiter<ClientKey>,
    /// An entry goes when the last of its requests leaves.
    turns: Mutex<HashMap<Key, (Arc<Semaphore>, usize)>>,
}

/// A place among the retries of one request, given back when dropped.
struct Waiting<'a> {
    turns: &'a KeyedMutex,
    key: Key,
    turn: Arc<Semaphore>,
    _share: fair_limiter::Permit<ClientKey>,
}

/// The turn itself; the next one's when dropped.
pub(crate) struct KeyedGuard<'a> {
    // Before the place: the permit belongs to what the place keeps.
    _permit: OwnedSemaphorePermit,
    _place: Waiting<'a>,
}

impl KeyedMutex {
    pub(crate) fn new() -> Self {
        Self { places: FairLimiter::new(PLACES), turns: Mutex::default() }
    }

    /// Waits until no other retry of the caller's request is at work.
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
