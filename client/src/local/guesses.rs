//! Limits what one peer can have asked of tokend about tokens that are not cached. A client that
//! makes up secrets causes a call with each, so a peer gets a few concurrent ones, and must slow
//! down after some unknown secrets. Called by the local verifier, if it knows the peer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokend_core::boot_instant::BootInstant;
use tokend_core::domain::PeerNetwork;
use tokio::sync::Semaphore;

use crate::error::Error;

/// How many peers are remembered, the most concurrent requests of one, the most unknown secrets at
/// once, and the time, in nanoseconds, after which one more is allowed.
const MAX_PEERS: usize = 4096;
const MAX_CONCURRENT: usize = 256;
const BURST: i64 = 100;
const INTERVAL: i64 = 100_000_000;

/// The peers that present secrets which are not cached.
#[derive(Debug)]
pub(super) struct Guesses(Cache<PeerNetwork, Arc<Peer>>);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) at_once: Semaphore,
    /// Until when its unknown secrets count (GCRA's theoretical arrival time), by the boot clock.
    until: AtomicI64,
}

impl Guesses {
    pub(super) fn new() -> Self {
        Self(Cache::new(MAX_PEERS))
    }

    /// Returns the peer at an address; for IPv6 its /64, all of which one machine may have.
    pub(super) fn peer(&self, address: IpAddr) -> Arc<Peer> {
        let new = || Peer { at_once: Semaphore::new(MAX_CONCURRENT), until: AtomicI64::new(i64::MIN) };
        self.0
            .get_or_insert_with(&PeerNetwork::from(address), || {
                Ok::<_, std::convert::Infallible>(Arc::new(new()))
            })
            .unwrap_or_else(|never| match never {})
    }
}

impl Peer {
    /// Checks that the peer has not presented too many unknown secrets lately.
    ///
    /// # Errors
    /// It has; with the time to wait.
    pub(super) fn check(&self, now: BootInstant) -> Result<(), Error> {
        let over =
            self.until.load(Ordering::Relaxed).saturating_sub(now.boot.saturating_add(BURST * INTERVAL));
        match u64::try_from(over) {
            Ok(over @ 1..) => Err(Error::guesses(Duration::from_nanos(over))),
            _ => Ok(()),
        }
    }

    /// Records that the peer presented an unknown secret.
    pub(super) fn charge(&self, now: BootInstant) {
        let later = |until: i64| Some(until.max(now.boot).saturating_add(INTERVAL));
        let _ = self.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn at(millis: i64) -> BootInstant {
        BootInstant { boot: millis * 1_000_000, wall: 0 }
    }

    #[test]
    fn a_guessing_peer_is_slowed_down_and_other_peers_are_not() {
        let guesses = Guesses::new();
        let peer = guesses.peer("192.0.2.7".parse().unwrap());
        let mut calls = 0;
        for millis in 0..1_000 {
            if peer.check(at(millis)).is_ok() {
                peer.charge(at(millis));
                calls += 1;
            }
        }
        assert!((BURST..=BURST + 11).contains(&calls), "{calls}");
        let refused = peer.check(at(999)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
        assert!(refused.retry_after().unwrap() <= Duration::from_millis(100));
        assert!(guesses.peer("192.0.2.8".parse().unwrap()).check(at(1_000)).is_ok());
        assert!(guesses.peer("::ffff:192.0.2.7".parse().unwrap()).check(at(999)).is_err());
        assert!(peer.check(at(20_000)).is_ok());
    }

    #[test]
    fn an_ipv6_network_of_one_machine_is_one_peer() {
        let guesses = Guesses::new();
        let peer = |text: &str| guesses.peer(text.parse().unwrap());
        assert!(Arc::ptr_eq(&peer("2001:db8::1"), &peer("2001:db8::2")));
        assert!(!Arc::ptr_eq(&peer("2001:db8::1"), &peer("2001:db8:0:1::1")));
    }
}
