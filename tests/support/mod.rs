//! What the suites share: a real Postgres with a fresh database for every test, servers in this
//! process on separate sockets, their clients, and helpers for refusals. Each suite includes it as
//! a module and uses the part that it needs.

pub(crate) mod assorted_tokens;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod contract;
pub(crate) mod database;
pub(crate) mod flood;
pub(crate) mod http;
pub(crate) mod plans;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod replica;
pub(crate) mod server;
pub(crate) mod status;

use std::time::{Duration, Instant};

/// How long a test waits for an expected result.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest pause between two probes: one that asks Postgres costs more than what it waits for.
const MAX_PAUSE: Duration = Duration::from_millis(80);

/// Calls `probe` until it returns a value, and returns that.
///
/// # Panics
/// There is none after 20 seconds.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "this did not come: {what}");
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
    }
}

/// Waits for the end of `work`.
///
/// # Panics
/// It does not end within 20 seconds.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(TIMEOUT, work).await;
    done.unwrap_or_else(|_| panic!("this did not end: {what}"))
}
