//! Retries of one request take turns: the first does the work, and those that come meanwhile find it done, at
//! the price of a look. Called by creation and rotation. Between replicas the request's row does the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ActionError;
use crate::deadline;
use crate::hashing::Overloaded;
use crate::shares::{self, Share, Shares};

/// How many requests may have their turn or wait for it, fairly shared among callers.
const PLACES: usize = 4096;

/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request, by what it is found again by.
type Key = [u8; 32];

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    places: Shares<Share>,
    /// An entry goes when the last of its requests leaves.
    turns: Mutex<HashMap<Key, (Arc<Semaphore>, usize)>>,
}

/// A place among the retries of one request, given back when dropped.
struct Place<'a> {
    turns: &'a Turns,
    key: Key,
    turn: Arc<Semaphore>,
    _share: shares::Place<Share>,
}

/// The turn itself; the next one's when dropped.
pub(super) struct Turn<'a> {
    // Before the place: the permit belongs to what the place keeps.
    _permit: OwnedSemaphorePermit,
    _place: Place<'a>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { places: Shares::new(PLACES), turns: Mutex::default() }
    }

    /// Waits until no other retry of the caller's request is at work.
    pub(super) async fn take(&self, caller: Share, key: Key) -> Result<Turn<'_>, ActionError> {
        let share = self.places.take(caller)?;
        let place = self.place(share, key);
        let waiting =
            tokio::time::timeout(deadline::at_most(PATIENCE), Arc::clone(&place.turn).acquire_owned());
        let permit = waiting.await.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
        Ok(Turn { _permit: permit, _place: place })
    }

    fn place(&self, share: shares::Place<Share>, key: Key) -> Place<'_> {
        let mut turns = self.lock();
        let (turn, places) = turns.entry(key).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *places = places.saturating_add(1);
        Place { turns: self, key, turn: Arc::clone(turn), _share: share }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Arc<Semaphore>, usize)>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
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
        let turns = Turns::new();
        let caller = Share::Peer(None);
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
