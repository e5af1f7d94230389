//! Slows down guessing of credentials: responses to failed authentications from one network are
//! delayed more and more. Called by the service. Successful authentications are never delayed, not
//! even from the same network.

use std::net::IpAddr;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::domain::PeerNetwork;

/// How many failures are free, and the interval after which one of them is forgotten.
const FREE_FAILURES: u32 = 10;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// The delay of the first failure that is not free; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// How many networks are remembered, and how many responses are delayed at once.
const MAX_NETWORKS: usize = 4096;
const MAX_DELAYED: usize = 1024;

/// Remembers failures.
#[derive(Debug)]
pub(crate) struct FailedAuthThrottle {
    failures: Cache<PeerNetwork, Failures>,
    delayed: Semaphore,
}

/// The number of failures that count at an instant.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    at: Instant,
}

impl Failures {
    /// Counts one more at `now`, less those that are forgotten by then.
    fn next(earlier: Option<Self>, now: Instant) -> Self {
        let count = earlier.map_or(0, |earlier| {
            let forgotten =
                now.duration_since(earlier.at).as_millis().checked_div(FORGOTTEN_AFTER.as_millis());
            let forgotten = forgotten.unwrap_or(0);
            earlier.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
        });
        Self { count: count.saturating_add(1), at: now }
    }

    fn delay(self) -> Duration {
        match self.count.checked_sub(FREE_FAILURES + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(MAX_DELAY),
        }
    }
}

impl FailedAuthThrottle {
    pub(crate) fn new() -> Self {
        Self { failures: Cache::new(MAX_NETWORKS), delayed: Semaphore::new(MAX_DELAYED) }
    }

    /// Counts a failure from this address and delays its response. Returns `false` if so many
    /// responses are delayed already that this one must be refused at once.
    pub(crate) async fn hold(&self, address: IpAddr) -> bool {
        let network = PeerNetwork::from(address);
        let failures = Failures::next(self.failures.get(&network), Instant::now());
        self.failures.insert(network, failures);
        let delay = failures.delay();
        if delay.is_zero() {
            return true;
        }
        let Ok(_delayed) = self.delayed.try_acquire() else { return false };
        tokio::time::sleep(delay).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_grow_until_failures_are_forgotten() {
        let begin = Instant::now();
        let mut failures = None;
        let mut delays = Vec::new();
        for _ in 0..30 {
            failures = Some(Failures::next(failures, begin));
            delays.push(failures.unwrap().delay());
        }
        assert!(delays[..10].iter().all(Duration::is_zero));
        assert_eq!(delays[10..13], [20, 40, 80].map(Duration::from_millis));
        assert_eq!(delays[29], MAX_DELAY);
        let later = Failures::next(failures, begin + FORGOTTEN_AFTER * 25);
        assert_eq!(later.delay(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn each_network_is_slowed_only_by_its_own_failures() {
        let throttle = FailedAuthThrottle::new();
        let took = async |address: &str| {
            let began = Instant::now();
            assert!(throttle.hold(address.parse().unwrap()).await);
            began.elapsed()
        };
        for _ in 0..15 {
            took("2001:db8::1").await;
        }
        assert!(took("2001:db8::2").await > Duration::from_millis(100));
        assert_eq!(took("2001:db8:0:1::1").await, Duration::ZERO);
        assert_eq!(took("192.0.2.1").await, Duration::ZERO);
    }
}
