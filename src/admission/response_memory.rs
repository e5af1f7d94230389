//! The memory of responses: pages of tokens and events, single tokens, watchers' changes, metrics. Reserved
//! before a response is built and returned when its last byte was passed to the socket, so that clients that
//! do not read fill no more than this limit, nor what others need. Called by the APIs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::fair_limiter::{ClientKey, FairLimiter, Permit, Refused};
use crate::metrics::ResponseMemoryMetrics;
use crate::runtime::deadline;

/// How long a page may wait for a page permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many pages may wait for each that can be built.
const QUEUE_PER_PERMIT: usize = 64;

/// The fraction of the memory that is added for responses that must be sent even when it is full,
/// and as much again for refusals, which unauthenticated clients get, too.
const RESERVE: usize = 8;

/// How often a waiting reservation is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Why a response is not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseMemoryError {
    /// No memory is left.
    #[error("unread responses take all the memory for responses; try again later, or ask for smaller pages")]
    Full,
    /// Memory is left, but only for others.
    #[error(
        "this caller's unread responses take its fair share of the memory; read them first, or ask for \
         smaller pages"
    )]
    OverShare,
    /// Too many pages are being built.
    #[error(transparent)]
    Busy(Refused),
}

/// The memory of all responses of a replica.
#[derive(Debug)]
pub struct ResponseMemory {
    all: usize,
    bytes: FairLimiter<ClientKey>,
    set_aside: FairLimiter<ClientKey>,
    refusals: FairLimiter<ClientKey>,
    permits: Arc<Semaphore>,
    queue: FairLimiter<ClientKey>,
    metrics: ResponseMemoryMetrics,
}

/// A reservation of memory for a response; returned with the last of its clones.
#[derive(Debug, Clone)]
pub struct Reservation(Arc<Mutex<Permit<ClientKey>>>);

/// The permit to build a page, with its memory reservation.
#[derive(Debug)]
pub struct PagePermit {
    /// Outlives the permit.
    pub reservation: Reservation,
    _permit: OwnedSemaphorePermit,
    _queued: Permit<ClientKey>,
}

impl ResponseMemory {
    /// Creates the memory for `bytes` bytes of responses, plus an eighth for those that must be
    /// sent; `permits` pages are built at once (at least one).
    #[must_use]
    pub fn new(bytes: usize, permits: usize, metrics: ResponseMemoryMetrics) -> Self {
        let permits = permits.max(1);
        let queue = FairLimiter::new(permits.saturating_mul(QUEUE_PER_PERMIT + 1));
        Self {
            all: bytes,
            bytes: FairLimiter::new(bytes),
            set_aside: FairLimiter::new(bytes / RESERVE),
            refusals: FairLimiter::new(bytes / RESERVE),
            permits: Arc::new(Semaphore::new(permits)),
            queue,
            metrics,
        }
    }

    /// Waits for a page permit and reserves as much as the page may need. So little memory is reserved
    /// at any time for pages that turn out smaller, and few pages wait for database connections.
    ///
    /// # Errors
    /// [`ResponseMemoryError`].
    pub async fn acquire_page(
        &self,
        share: ClientKey,
        most: usize,
    ) -> Result<PagePermit, ResponseMemoryError> {
        let queued = self.queue.take(share).map_err(ResponseMemoryError::Busy);
        let queued = queued.inspect_err(|error| self.count(*error))?;
        let waiting = tokio::time::timeout(
            deadline::at_most(PERMIT_TIMEOUT),
            Arc::clone(&self.permits).acquire_owned(),
        );
        let Ok(Ok(permit)) = waiting.await else {
            let error = ResponseMemoryError::Busy(Refused::Full);
            self.count(error);
            return Err(error);
        };
        Ok(PagePermit { reservation: self.reserve(share, most)?, _permit: permit, _queued: queued })
    }

    /// Reserves memory for a response that exists or is about to be built.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: none is left.
    pub fn reserve(&self, share: ClientKey, bytes: usize) -> Result<Reservation, ResponseMemoryError> {
        self.counted(take(&self.bytes, share, bytes))
    }

    /// Reserves memory for what must be sent even when the memory is full: that a token has been
    /// revoked, and the metrics.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: not even the memory set aside is left.
    pub fn reserve_set_aside(
        &self,
        share: ClientKey,
        bytes: usize,
    ) -> Result<Reservation, ResponseMemoryError> {
        let ordinary = take(&self.bytes, share, bytes);
        self.counted(ordinary.or_else(|_| take(&self.set_aside, share, bytes)))
    }

    /// Waits for memory for messages that a server sends unasked. A longer one counts as a quarter
    /// of the memory, since it might otherwise never be sent.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: none became free within `timeout`.
    pub async fn wait_to_reserve(
        &self,
        share: ClientKey,
        bytes: usize,
        timeout: Duration,
    ) -> Result<Reservation, ResponseMemoryError> {
        let until = Instant::now() + timeout;
        loop {
            match take(&self.bytes, share, bytes.min(self.all / 4)) {
                Err(_) if Instant::now() < until => tokio::time::sleep(RETRY_INTERVAL).await,
                outcome => return self.counted(outcome),
            }
        }
    }

    /// Reserves memory for a refusal.
    ///
    /// # Errors
    /// [`ResponseMemoryError`]: none is left.
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

    /// Returns how many bytes are reserved.
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
        Ok(permit) => Ok(Reservation(Arc::new(Mutex::new(permit)))),
        Err(Refused::Full) => Err(ResponseMemoryError::Full),
        Err(Refused::OverShare) => Err(ResponseMemoryError::OverShare),
    }
}

impl Reservation {
    /// Changes the reservation to the response's actual length.
    pub fn shrink(&self, bytes: usize) {
        self.lock().shrink(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Permit<ClientKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a copy of the bytes that keeps these reservations as long as any clone exists. It is a copy
/// because the original buffer may have as much spare capacity again, for which nothing was reserved.
#[must_use]
pub fn reserved_bytes(bytes: &[u8], reservations: Vec<Reservation>) -> Bytes {
    Bytes::from_owner(ReservedBytes { bytes: bytes.into(), _reservations: reservations })
}

struct ReservedBytes {
    bytes: Box<[u8]>,
    _reservations: Vec<Reservation>,
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

    fn response_memory(bytes: usize, permits: usize) -> ResponseMemory {
        ResponseMemory::new(bytes, permits, Metrics::new().unwrap().work.response_memory.clone())
    }

    #[tokio::test]
    async fn memory_stays_reserved_until_the_last_slice_is_dropped() {
        let response_memory = response_memory(1_000, 1);
        let page = response_memory.acquire_page(ClientKey::peer(None), 500).await.unwrap();
        assert_eq!(response_memory.taken(), 500);
        page.reservation.shrink(10);
        let bytes = reserved_bytes(b"0123456789", vec![page.reservation.clone()]);
        drop(page);
        let piece = bytes.slice(8..);
        drop(bytes);
        assert_eq!((&piece[..], response_memory.taken()), (&b"89"[..], 10));
        drop(piece);
        assert_eq!(response_memory.taken(), 0);
    }

    #[test]
    fn a_caller_over_its_share_and_a_full_memory_are_different_errors() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::peer(Some([10, 0, 0, last].into()));
        let held = [(1, 500), (2, 250), (3, 240)]
            .map(|(last, bytes)| response_memory.reserve(share(last), bytes).unwrap());
        assert_eq!(response_memory.reserve(share(1), 5).unwrap_err(), ResponseMemoryError::OverShare);
        assert_eq!(response_memory.reserve(share(4), 20).unwrap_err(), ResponseMemoryError::Full);
        assert!(response_memory.reserve(share(4), 10).is_ok());
        drop(held);
        assert_eq!(response_memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_too_long_for_a_page_permit_is_an_error_and_releases_everything() {
        let response_memory = response_memory(1_000, 1);
        let first = response_memory.acquire_page(ClientKey::peer(None), 10).await.unwrap();
        let error = response_memory.acquire_page(ClientKey::peer(None), 10).await.unwrap_err();
        assert_eq!(error, ResponseMemoryError::Busy(Refused::Full));
        drop(first);
        assert!(response_memory.acquire_page(ClientKey::peer(None), 10).await.is_ok());
        assert_eq!(response_memory.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unrequested_message_waits_for_memory_and_may_have_any_length() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::peer(Some([10, 0, 0, last].into()));
        let held = [(1, 500), (2, 250), (3, 125)]
            .map(|(last, bytes)| response_memory.reserve(share(last), bytes).unwrap());
        let refused = response_memory.wait_to_reserve(share(4), 5_000, PERMIT_TIMEOUT).await.unwrap_err();
        assert_eq!(refused, ResponseMemoryError::Full);
        let reads = async {
            tokio::time::sleep(PERMIT_TIMEOUT / 2).await;
            drop(held);
        };
        let (reservation, ()) =
            tokio::join!(response_memory.wait_to_reserve(share(4), 5_000, PERMIT_TIMEOUT), reads);
        assert_eq!((reservation.is_ok(), response_memory.taken()), (true, 250));
    }

    #[test]
    fn a_full_memory_still_has_its_reserve() {
        let response_memory = response_memory(1_000, 1);
        let share = |last| ClientKey::peer(Some([10, 0, 0, last].into()));
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
