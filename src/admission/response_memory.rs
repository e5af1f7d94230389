//! The memory of answers: pages of tokens and of events, one token, changes that watchers are told, the metrics. It is
//! taken before an answer is made, and given back when the last byte of it was handed to the socket, so that those
//! who ask and do not read fill no more than there is for it, nor what others need. Called by the faces.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::fair_limiter::{ClientKey, FairLimiter, Permit, Refused};
use crate::metrics::ResponseMemoryMetrics;
use crate::runtime::deadline;

/// How long a page may wait for its turn to be made.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many pages may wait for each that can be made.
const QUEUE_PER_TURN: usize = 64;

/// Which part of the room there is beside it, for what must be told also when it is full; and as much for refusals,
/// which strangers are told, too.
const RESERVE: usize = 8;

/// How often whoever waits for room looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// Why an answer is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseMemoryError {
    /// There is no room.
    #[error(
        "answers that wait to be read take all the room for them; try again later, or ask for smaller pages"
    )]
    Full,
    /// There is room, for others.
    #[error(
        "this caller's answers that wait to be read take its fair share of the room; read them first, or ask for \
         smaller pages"
    )]
    OverShare,
    /// Too many are being made.
    #[error(transparent)]
    Busy(Refused),
}

/// The room for all answers of a replica.
#[derive(Debug)]
pub struct ResponseMemory {
    all: usize,
    bytes: FairLimiter<ClientKey>,
    set_aside: FairLimiter<ClientKey>,
    refusals: FairLimiter<ClientKey>,
    turns: Arc<Semaphore>,
    queue: FairLimiter<ClientKey>,
    metrics: ResponseMemoryMetrics,
}

/// Room that an answer takes; given back with the last of its copies.
#[derive(Debug, Clone)]
pub struct Reservation(Arc<Mutex<Permit<ClientKey>>>);

/// The turn of a page to be made, and room for it.
#[derive(Debug)]
pub struct PagePermit {
    /// What outlives the turn.
    pub reservation: Reservation,
    _permit: OwnedSemaphorePermit,
    _place: Permit<ClientKey>,
}

impl ResponseMemory {
    /// Makes room for so many bytes of answers, an eighth of it beside for those that must be told, of which `turns`
    /// pages are made at once (at least one).
    #[must_use]
    pub fn new(bytes: usize, turns: usize, metrics: ResponseMemoryMetrics) -> Self {
        let turns = turns.max(1);
        let queue = FairLimiter::new(turns.saturating_mul(QUEUE_PER_TURN + 1));
        Self {
            all: bytes,
            bytes: FairLimiter::new(bytes),
            set_aside: FairLimiter::new(bytes / RESERVE),
            refusals: FairLimiter::new(bytes / RESERVE),
            turns: Arc::new(Semaphore::new(turns)),
            queue,
            metrics,
        }
    }

    /// Waits for its turn to make a page, and takes as much room as it may need. So what is taken for pages that
    /// turn out to be smaller is little at any time, and few wait for connections to the database.
    ///
    /// # Errors
    /// [`ResponseMemoryError`].
    pub async fn acquire_page(
        &self,
        share: ClientKey,
        most: usize,
    ) -> Result<PagePermit, ResponseMemoryError> {
        let place = self.queue.take(share).map_err(ResponseMemoryError::Busy);
        let place = place.inspect_err(|error| self.count(*error))?;
        let waiting =
            tokio::time::timeout(deadline::at_most(PATIENCE), Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(permit)) = waiting.await else {
            let error = ResponseMemoryError::Busy(Refused::Full);
            self.count(error);
            return Err(error);
        };
        Ok(PagePermit { reservation: self.reserve(share, most)?, _permit: permit, _place: place })
    }

    /// Takes room for an answer that is there, or about to be.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: there is none.
    pub fn reserve(&self, share: ClientKey, bytes: usize) -> Result<Reservation, ResponseMemoryError> {
        self.counted(take(&self.bytes, share, bytes))
    }

    /// Does the same for what must be told also when the room is full: that a token has been revoked, and the metrics.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: there is not even this.
    pub fn reserve_set_aside(
        &self,
        share: ClientKey,
        bytes: usize,
    ) -> Result<Reservation, ResponseMemoryError> {
        let ordinary = take(&self.bytes, share, bytes);
        self.counted(ordinary.or_else(|_| take(&self.set_aside, share, bytes)))
    }

    /// Waits for room for what is told unasked. What is longer than a quarter of all the room counts as that, or it
    /// might never be told.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: there was none for as long as this.
    pub async fn wait_to_reserve(
        &self,
        share: ClientKey,
        bytes: usize,
        patience: Duration,
    ) -> Result<Reservation, ResponseMemoryError> {
        let until = Instant::now() + patience;
        loop {
            match take(&self.bytes, share, bytes.min(self.all / 4)) {
                Err(_) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                outcome => return self.counted(outcome),
            }
        }
    }

    /// Takes room for a refusal.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: there is none.
    pub fn reserve_for_refusal(
        &self,
        share: ClientKey,
        bytes: usize,
    ) -> Result<Reservation, ResponseMemoryError> {
        self.counted(take(&self.refusals, share, bytes))
    }

    fn count(&self, error: ResponseMemoryError) {
        match error {
            ResponseMemoryError::Full | ResponseMemoryError::Busy(Refused::Full) => {
                self.metrics.refused_full();
            }
            ResponseMemoryError::OverShare | ResponseMemoryError::Busy(Refused::OverShare) => {
                self.metrics.refused_over_share();
            }
        }
    }

    fn counted(
        &self,
        outcome: Result<Reservation, ResponseMemoryError>,
    ) -> Result<Reservation, ResponseMemoryError> {
        outcome.inspect_err(|error| self.count(*error))
    }

    /// Tells how many bytes are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.bytes.taken() + self.set_aside.taken() + self.refusals.taken()
    }
}

fn take(
    shares: &FairLimiter<ClientKey>,
    share: ClientKey,
    bytes: usize,
) -> Result<Reservation, ResponseMemoryError> {
    match shares.take_many(share, bytes) {
        Ok(place) => Ok(Reservation(Arc::new(Mutex::new(place)))),
        Err(Refused::Full) => Err(ResponseMemoryError::Full),
        Err(Refused::OverShare) => Err(ResponseMemoryError::OverShare),
    }
}

impl Reservation {
    /// Keeps what an answer takes that is as long as this.
    pub fn shrink(&self, bytes: usize) {
        self.lock().shrink(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Permit<ClientKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a copy of the bytes, which holds these rooms for as long as anybody holds it. What they were written to has
/// up to as much again to spare, which no room was taken for.
#[must_use]
pub fn holding(bytes: &[u8], rooms: Vec<Reservation>) -> Bytes {
    Bytes::from_owner(ReservedBytes { bytes: bytes.into(), _rooms: rooms })
}

struct ReservedBytes {
    bytes: Box<[u8]>,
    _rooms: Vec<Reservation>,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn response_memory(bytes: usize, turns: usize) -> ResponseMemory {
        ResponseMemory::new(bytes, turns, Metrics::new().unwrap().work.response_memory.clone())
    }

    #[tokio::test]
    async fn room_is_held_until_the_last_piece_of_the_bytes_is_gone() {
        let response_memory = response_memory(1_000, 1);
        let page = response_memory.acquire_page(ClientKey::Peer(None), 500).await.unwrap();
        assert_eq!(response_memory.taken(), 500);
        page.reservation.shrink(10);
        let bytes = holding(b"0123456789", vec![page.reservation.clone()]);
        drop(page);
        let piece = bytes.slice(8..);
        drop(bytes);
        assert_eq!((&piece[..], response_memory.taken()), (&b"89"[..], 10));
        drop(piece);
        assert_eq!(response_memory.taken(), 0);
    }

    #[test]
    fn who_has_too_much_is_told_so_and_who_comes_too_late_another_thing() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::Peer(Some([10, 0, 0, last].into()));
        let held = [(1, 500), (2, 250), (3, 240)]
            .map(|(last, bytes)| response_memory.reserve(share(last), bytes).unwrap());
        assert_eq!(response_memory.reserve(share(1), 5).unwrap_err(), ResponseMemoryError::OverShare);
        assert_eq!(response_memory.reserve(share(4), 20).unwrap_err(), ResponseMemoryError::Full);
        assert!(response_memory.reserve(share(4), 10).is_ok());
        drop(held);
        assert_eq!(response_memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_for_a_turn_is_told_and_leaves_no_trace() {
        let response_memory = response_memory(1_000, 1);
        let first = response_memory.acquire_page(ClientKey::Peer(None), 10).await.unwrap();
        let error = response_memory.acquire_page(ClientKey::Peer(None), 10).await.unwrap_err();
        assert_eq!(error, ResponseMemoryError::Busy(Refused::Full));
        drop(first);
        assert!(response_memory.acquire_page(ClientKey::Peer(None), 10).await.is_ok());
        assert_eq!(response_memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_unasked_waits_until_others_have_read_and_its_length_never_forbids_it() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::Peer(Some([10, 0, 0, last].into()));
        let held = [(1, 500), (2, 250), (3, 125)]
            .map(|(last, bytes)| response_memory.reserve(share(last), bytes).unwrap());
        let refused = response_memory.wait_to_reserve(share(4), 5_000, PATIENCE).await.unwrap_err();
        assert_eq!(refused, ResponseMemoryError::Full);
        let reads = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(held);
        };
        let (room, ()) = tokio::join!(response_memory.wait_to_reserve(share(4), 5_000, PATIENCE), reads);
        assert_eq!((room.is_ok(), response_memory.taken()), (true, 250));
    }

    #[test]
    fn there_is_a_reserve_when_the_room_is_full() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::Peer(Some([10, 0, 0, last].into()));
        let _held = [(1, 500), (2, 250), (3, 250)]
            .map(|(last, bytes)| response_memory.reserve(share(last), bytes).unwrap());
        let reserved = response_memory.reserve_set_aside(share(1), 63);
        assert_eq!((reserved.is_ok(), response_memory.taken()), (true, 1_063));
        assert_eq!(
            response_memory.reserve_set_aside(share(1), 1).unwrap_err(),
            ResponseMemoryError::OverShare
        );
    }
}
