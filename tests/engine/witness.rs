//! Clients that never pause: each verifies one token after another on one replica, and every
//! response is compared with the known revocations. A request sent after a revocation's
//! `effective_time` must not get VALID, whatever is failing at the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokend::api::proto::{RevokeTokenResponse, Verdict};
use tokio::task::JoinSet;

use super::fleet::Process;
use super::setup::{Made, assert_unavailable};
use crate::support::client::{Client, nanos, question};

/// A token, with the time of the response to its revocation, its effective time, and the replica
/// that revoked it.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) token: Made,
    revoked: OnceLock<(Instant, i128, usize)>,
    /// The replicas that have refused it, one bit each.
    refusals: AtomicU64,
}

impl Suspect {
    pub(crate) fn new(token: Made) -> Arc<Self> {
        Arc::new(Self { token, revoked: OnceLock::new(), refusals: AtomicU64::new(0) })
    }

    /// Returns whether a replica has refused it.
    pub(crate) fn is_refused_by(&self, replica: usize) -> bool {
        self.refusals.load(Ordering::Relaxed) & (1 << replica) != 0
    }

    /// Returns when it must be refused from, once that is known, in nanoseconds since 1970.
    pub(crate) fn effective_time(&self) -> Option<i128> {
        self.revoked.get().map(|(_, effective, _)| *effective)
    }

    /// Records a replica's response to its revocation.
    pub(crate) fn convict(&self, replica: usize, answer: &RevokeTokenResponse) {
        let _ = self.revoked.set((Instant::now(), nanos(answer.effective_time.as_ref()), replica));
    }
}

/// What the clients have observed.
#[derive(Debug)]
pub(crate) struct Observations {
    pub(crate) answers: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    ended: AtomicBool,
    /// From the response to a revocation to the first refusal on each other replica, in microseconds.
    pub(crate) delays: Mutex<Histogram<u64>>,
}

impl Observations {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            answers: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            delays: Mutex::new(Histogram::new(3).unwrap()),
        })
    }

    /// Returns the number of responses per second since there were `before`.
    pub(crate) fn rate_since(&self, before: u64, began: Instant) -> f64 {
        let answers = u32::try_from(self.answers.load(Ordering::Relaxed) - before).unwrap();
        f64::from(answers) / began.elapsed().as_secs_f64()
    }

    /// Tells the clients to end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Verifies once and judges the response.
    pub(crate) async fn ask(&self, client: &mut Client, replica: usize, suspect: &Suspect) {
        let sent = wall();
        let convicted = suspect.revoked.get().copied();
        let outcome = client.verify(question(&suspect.token.secret, &[])).await;
        let answer = match outcome {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                assert_unavailable(&status);
                self.unavailable.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        match answer.verdict() {
            Verdict::Valid => {
                let late = convicted.map_or(0, |(_, effective, _)| sent - effective);
                assert!(late <= 0, "VALID on replica {replica} {late} ns after the effective time");
            }
            Verdict::Revoked => self.note_refusal(replica, suspect),
            other => panic!("{other:?} of a token that was VALID"),
        }
    }

    fn note_refusal(&self, replica: usize, suspect: &Suspect) {
        let bit = 1 << replica;
        if suspect.refusals.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            // A refusal may come before the response to the revocation itself.
            let revoked = suspect.revoked.get();
            if revoked.is_some_and(|(.., here)| *here == replica) {
                return;
            }
            let delay = revoked.map_or(Duration::ZERO, |(revoked, ..)| revoked.elapsed());
            let micros = u64::try_from(delay.as_micros()).unwrap().max(1);
            self.delays.lock().unwrap().record(micros).unwrap();
        }
    }
}

/// Starts `clients` clients per replica that verify all suspects in turn, one request every
/// `pause`, until the end. A client's finding is raised when the set is joined.
pub(crate) fn watch(
    fleet: &[Process],
    clients: u32,
    pause: Duration,
    suspects: &Arc<[Arc<Suspect>]>,
    observations: &Arc<Observations>,
) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    for (replica, process) in fleet.iter().enumerate() {
        for number in 0..clients {
            let (mut client, observations, suspects) =
                (process.root(), Arc::clone(observations), Arc::clone(suspects));
            watching.spawn(async move {
                let mut next = (number * 7) as usize;
                let mut due = tokio::time::Instant::now();
                while !observations.has_ended() {
                    observations.ask(&mut client, replica, &suspects[next % suspects.len()]).await;
                    next += 1;
                    // A fixed schedule that does not wait for slow responses.
                    due += pause;
                    tokio::time::sleep_until(due).await;
                }
            });
        }
    }
    watching
}

/// Ends a watch; fails if any of its clients has failed.
pub(crate) async fn conclude(mut watching: JoinSet<()>, observations: &Observations) {
    observations.end();
    while let Some(ended) = watching.join_next().await {
        ended.unwrap();
    }
    assert!(observations.answers.load(Ordering::Relaxed) > 0);
}

/// This machine's clock, which is also the database's, in nanoseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the effective time is compared with the clock of this machine"
)]
pub(crate) fn wall() -> i128 {
    time::OffsetDateTime::now_utc().unix_timestamp_nanos()
}
