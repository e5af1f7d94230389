//! Limits the log lines about refused calls and handshakes, since anyone can cause them without
//! bound: per reason and network, and per reason. The rest is counted, and the count is logged.
//! Called where a refusal is logged; global, since the log is per process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::PeerNetwork;

/// The window in which lines are counted, and the most lines of one reason in it, for one network
/// and for all.
const WINDOW: Duration = Duration::from_secs(10);
const OF_NETWORK: u32 = 10;
const OF_REASON: u32 = 50;

static LINES: LazyLock<Mutex<LineLimits>> = LazyLock::new(|| Mutex::new(LineLimits::new(Instant::now())));

/// Counts a refusal for this reason, one of a fixed set; returns whether to log it.
pub fn should_log(reason: &str, peer: Option<IpAddr>) -> bool {
    let now = Instant::now();
    let (admitted, left_out) = {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = lines.next_window(now);
        (lines.admit(reason, peer.map(PeerNetwork::from)), left_out)
    };
    log(&left_out);
    admitted
}

/// Logs the counts of omitted lines at the end of each window, even without new refusals; never ends.
pub async fn log_left_out() {
    loop {
        tokio::time::sleep(WINDOW).await;
        let left_out = LINES.lock().unwrap_or_else(PoisonError::into_inner).next_window(Instant::now());
        log(&left_out);
    }
}

fn log(left_out: &[(String, u64)]) {
    for (reason, count) in left_out {
        tracing::info!(reason, count, "refused, and not logged one by one");
    }
}

/// The lines written and omitted since `began`. Bounded by the number of reasons and by the lines written.
#[derive(Debug)]
struct LineLimits {
    began: Instant,
    reasons: HashMap<String, ReasonCounts>,
}

#[derive(Debug, Default)]
struct ReasonCounts {
    written: u32,
    networks: HashMap<Option<PeerNetwork>, u32>,
    left_out: u64,
}

impl LineLimits {
    fn new(began: Instant) -> Self {
        Self { began, reasons: HashMap::new() }
    }

    /// Starts a new window when the current one is over; returns how many lines of each reason it omitted.
    fn next_window(&mut self, now: Instant) -> Vec<(String, u64)> {
        if now.duration_since(self.began) < WINDOW {
            return Vec::new();
        }
        let ended = std::mem::replace(self, Self::new(now)).reasons.into_iter();
        ended.filter(|(_, of)| of.left_out > 0).map(|(reason, of)| (reason, of.left_out)).collect()
    }

    fn admit(&mut self, reason: &str, network: Option<PeerNetwork>) -> bool {
        if !self.reasons.contains_key(reason) {
            self.reasons.insert(reason.to_owned(), ReasonCounts::default());
        }
        let Some(of) = self.reasons.get_mut(reason) else { return false };
        let to_network = of.networks.get(&network).copied().unwrap_or_default();
        if of.written == OF_REASON || to_network == OF_NETWORK {
            of.left_out += 1;
            return false;
        }
        of.written += 1;
        of.networks.insert(network, to_network + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> PeerNetwork {
        IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn each_network_has_its_own_lines_within_the_limit_of_the_reason() {
        let begin = Instant::now();
        let mut lines = LineLimits::new(begin);

        let to_one = (0..1000).filter(|_| lines.admit("A", Some(network(1)))).count();
        let to_many = (0..100_000).filter(|&number| lines.admit("A", Some(network(number)))).count();
        let of_another = (0..1000).filter(|_| lines.admit("B", Some(network(1)))).count();

        assert_eq!((to_one, to_many, of_another), (10, 40, 10));
        assert!(lines.reasons.values().all(|of| of.networks.len() <= OF_REASON as usize));
        assert_eq!(lines.next_window(begin + WINDOW / 2), []);
        let mut left_out = lines.next_window(begin + WINDOW);
        left_out.sort();
        assert_eq!(left_out, [("A".to_owned(), 100_950), ("B".to_owned(), 990)]);
        assert!(lines.admit("A", Some(network(1))));
        assert_eq!(lines.next_window(begin + WINDOW * 3), []);
    }
}
