//! The memory of unanswered requests: what a peer has sent is counted once the rest has to be waited for, per
//! connection, per address and in total. So unauthenticated clients, however many, use no more than this limit; where it
//! is used up, a connection of the address that takes the most is closed. Called by the listeners' services and by
//! connections. Knows no protocol.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::eviction::{CONNECTION, Claim, Evictable, Evictables, Listener};
use super::fair_limiter::{FairLimiter, Permit, Refused};
use crate::domain::PeerNetwork;
use crate::metrics::RequestMetrics;

/// The most bytes of a connection's unfinished requests: before its peer has shown a credential, and after.
const CONNECTION_BYTES: usize = 340 * 1024;
const AUTHENTICATED_CONNECTION_BYTES: usize = 1024 * 1024;

/// The bytes of an open request in addition to what was sent: its future, and its entries in HTTP's tables.
const OPEN_REQUEST_BYTES: usize = 3 * 1024;

/// Limits the bytes of the requests of all connections.
#[derive(Debug, Clone)]
pub struct RequestLimiter {
    bytes: FairLimiter<PeerNetwork>,
    evictable: Arc<Evictables>,
    listeners: Arc<AtomicUsize>,
    listener: Listener,
    read_timeout: Duration,
    metrics: RequestMetrics,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct ConnectionRequests {
    limiter: RequestLimiter,
    network: PeerNetwork,
    /// Whether its peer has shown a credential.
    authenticated: Arc<AtomicBool>,
    unfinished: AtomicUsize,
}

/// The bytes of a request; returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    connection: Arc<ConnectionRequests>,
    permit: Permit<PeerNetwork>,
    unfinished: usize,
}

impl RequestLimiter {
    fn count(&self, refused: Refused) {
        match refused {
            Refused::Full => self.metrics.refused_full(),
            Refused::OverShare => self.metrics.refused_over_share(),
        }
    }

    /// Creates a limiter for this many bytes; `read_timeout` bounds the wait for the rest of a request.
    #[must_use]
    pub fn new(bytes: usize, read_timeout: Duration, metrics: RequestMetrics) -> Self {
        let bytes = FairLimiter::reclaimable(bytes);
        let (evictable, listeners) = (Arc::default(), Arc::default());
        Self { bytes, evictable, listeners, listener: 0, read_timeout, metrics }
    }

    /// Returns the same limiter for the connections of another listener.
    #[must_use]
    pub(crate) fn for_listener(&self) -> Self {
        let before = self.listeners.fetch_add(1, Ordering::Relaxed);
        Self { listener: before.saturating_add(1), ..self.clone() }
    }

    /// Evicts a connection of this listener's unauthenticated peers, for a new one of this address; returns whether there
    /// was one.
    pub(crate) fn evict_for_another(&self, address: IpAddr) -> bool {
        let listener = Some(self.listener);
        let claim = Claim { network: address.into(), listener, own: 0, more: CONNECTION };
        let evicted = self.evictable.evict(&self.bytes, claim);
        if evicted {
            self.metrics.evicted();
        }
        evicted
    }

    /// Starts to count the requests of a connection from this address; `authenticated` becomes true when
    /// its peer has shown a credential.
    #[must_use]
    pub fn connection(&self, address: IpAddr, authenticated: Arc<AtomicBool>) -> Arc<ConnectionRequests> {
        Arc::new(ConnectionRequests {
            limiter: self.clone(),
            network: address.into(),
            authenticated,
            unfinished: AtomicUsize::new(0),
        })
    }

    /// Takes [`CONNECTION`] bytes for the connection of an unauthenticated peer. A new connection is never refused: where
    /// there is no room, another one is evicted.
    pub(crate) fn unauthenticated(&self, address: IpAddr) -> (Permit<PeerNetwork>, Arc<Evictable>) {
        let network = PeerNetwork::from(address);
        let mut permit = self.bytes.empty(network);
        if self.grow(&mut permit, 0, CONNECTION).is_err() {
            // The requests of authenticated peers take everything.
            permit.overdraw(CONNECTION);
        }
        (permit, self.evictable.add(self.listener, network, CONNECTION))
    }

    /// Changes a connection's permit from `from` bytes to `to` bytes.
    ///
    /// # Errors
    /// [`Refused`]: its address, or all addresses together, take too much.
    pub(crate) fn resize(
        &self,
        permit: &mut Permit<PeerNetwork>,
        from: usize,
        to: usize,
    ) -> Result<(), Refused> {
        let Some(more) = to.checked_sub(from) else {
            permit.shrink(to);
            return Ok(());
        };
        self.grow(permit, from, more).inspect_err(|refused| self.count(*refused))
    }

    /// Takes more bytes for a permit, whose connection has `own` bytes. Where there is no room, a connection that takes more
    /// is evicted; until it is closed, the total may exceed the limit by what it takes.
    fn grow(&self, permit: &mut Permit<PeerNetwork>, own: usize, more: usize) -> Result<(), Refused> {
        let grown = permit.grow(more);
        let claim = Claim { network: *permit.key(), listener: None, own, more };
        if grown.is_err() && self.evictable.make_room(&self.bytes, claim) {
            self.metrics.evicted();
            permit.overdraw(more);
            return Ok(());
        }
        grown
    }

    /// Returns how many bytes are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.bytes.taken()
    }
}

impl ConnectionRequests {
    /// Returns how long to wait for the rest of a request.
    #[must_use]
    pub fn read_timeout(&self) -> Duration {
        self.limiter.read_timeout
    }

    /// Reserves bytes for a request whose rest is waited for.
    ///
    /// # Errors
    /// [`Refused`]: the connection, its address or all together have too much unfinished.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, Refused> {
        let mut permit = self.limiter.bytes.empty(self.network);
        let taken = self.take(bytes).and_then(|own| {
            self.limiter.grow(&mut permit, own, bytes).inspect_err(|_| self.give_back(bytes))
        });
        taken.inspect_err(|refused| self.limiter.count(*refused))?;
        Ok(Reservation { connection: Arc::clone(self), permit, unfinished: bytes })
    }

    /// Reserves the memory of an open request of which `bytes` have arrived.
    ///
    /// # Errors
    /// [`Refused`]: the connection, its address or all together have too much unfinished.
    pub fn open(self: &Arc<Self>, bytes: usize) -> Result<Reservation, Refused> {
        self.reserve(OPEN_REQUEST_BYTES + bytes)
    }

    /// Takes bytes of the connection, and returns how many it had before.
    fn take(&self, bytes: usize) -> Result<usize, Refused> {
        let most = if self.authenticated.load(Ordering::Relaxed) {
            AUTHENTICATED_CONNECTION_BYTES
        } else {
            CONNECTION_BYTES
        };
        let fits = |taken: usize| Some(taken + bytes).filter(|sum| *sum <= most);
        let taken = self.unfinished.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|before| CONNECTION + before).map_err(|_| Refused::OverShare)
    }

    fn give_back(&self, bytes: usize) {
        self.unfinished.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Reserves more bytes, as more has arrived.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        let connection = &self.connection;
        let taken = connection.take(bytes).and_then(|own| {
            connection.limiter.grow(&mut self.permit, own, bytes).inspect_err(|_| connection.give_back(bytes))
        });
        taken.inspect_err(|refused| connection.limiter.count(*refused))?;
        self.unfinished += bytes;
        Ok(())
    }

    /// Counts the request as arrived: no longer against its connection, and against its address
    /// only with the bytes sent, since from now on the limit of calls bounds what waits.
    pub fn finish(&mut self, sent: usize) {
        self.permit.shrink(sent.min(self.unfinished));
        self.connection.give_back(std::mem::take(&mut self.unfinished));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.connection.give_back(self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn limiter(bytes: usize) -> RequestLimiter {
        let metrics = Metrics::new().unwrap().work.requests.clone();
        RequestLimiter::new(bytes, Duration::from_secs(1), metrics)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_connection_an_address_and_all_together_are_each_bounded() {
        const OTHERS: usize = CONNECTION_BYTES / 16;
        let limiter = limiter(2 * CONNECTION_BYTES + CONNECTION_BYTES / 8);
        let first = limiter.connection(address(1), Arc::default());
        let mut held = first.reserve(CONNECTION_BYTES).unwrap();
        assert_eq!(first.reserve(1).unwrap_err(), Refused::OverShare);
        assert_eq!(held.grow(1).unwrap_err(), Refused::OverShare);
        let second = limiter.connection(address(1), Arc::default());
        let _also = second.reserve(CONNECTION_BYTES).unwrap();
        assert_eq!(
            limiter.connection(address(1), Arc::default()).reserve(1).unwrap_err(),
            Refused::OverShare
        );
        let other = limiter.connection(address(2), Arc::default());
        let _others = other.reserve(OTHERS).unwrap();
        assert_eq!(limiter.taken(), 2 * CONNECTION_BYTES + OTHERS);
        // A request that has arrived no longer counts for its connection, and for its address only
        // with the bytes sent.
        held.finish(7);
        assert_eq!(
            (limiter.taken(), first.unfinished.load(Ordering::Relaxed)),
            (CONNECTION_BYTES + OTHERS + 7, 0)
        );
        drop(held);
        assert_eq!(limiter.taken(), CONNECTION_BYTES + OTHERS);
        assert!(first.reserve(1).is_ok());
    }

    #[test]
    fn an_authenticated_client_may_have_an_unfinished_request_on_every_stream() {
        let limiter = limiter(4 * AUTHENTICATED_CONNECTION_BYTES);
        let authenticated = Arc::new(AtomicBool::new(false));
        let connection = limiter.connection(address(1), Arc::clone(&authenticated));
        let open = || (0..256).map_while(|_| connection.open(0).ok()).collect::<Vec<_>>().len();
        assert_eq!(open(), CONNECTION_BYTES / OPEN_REQUEST_BYTES);
        authenticated.store(true, Ordering::Relaxed);
        assert_eq!(open(), 256);
    }
}
