//! Replicas under load while something fails: clients verify all the time (`witness` judges each
//! response), and tokens are constantly revoked and created. What was acknowledged must hold in the
//! end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokend::api::proto::{Consistency, Verdict, VerifyRequest};
use tokio::task::JoinSet;

use super::fleet::Process;
use super::setup::{Made, assert_unavailable, made};
use super::witness::{Observations, Suspect, conclude, wall, watch};
use crate::support::client::{Client, ordinary, question, revocation};
use crate::support::eventually;

/// The clients, and what was acknowledged to them.
pub(crate) struct FaultTest {
    clients: JoinSet<()>,
    doomed: Arc<[Arc<Suspect>]>,
    created: Arc<Mutex<Vec<Made>>>,
    observations: Arc<Observations>,
}

impl FaultTest {
    /// Creates tokens to be revoked, and starts the clients.
    pub(crate) async fn start(fleet: &[Process], tokens: usize) -> Self {
        let mut doomed = Vec::new();
        let mut root = fleet[0].root();
        for _ in 0..tokens {
            doomed.push(Suspect::new(made(&mut root).await));
        }
        let doomed: Arc<[_]> = doomed.into();
        let (observations, created) = (Observations::new(), Arc::default());
        let mut clients = watch(fleet, 3, Duration::from_millis(5), &doomed, &observations);
        let roots = || fleet.iter().map(Process::root).collect::<Vec<_>>();
        clients.spawn(revoke_on_and_on(roots(), Arc::clone(&doomed), Arc::clone(&observations)));
        clients.spawn(create_on_and_on(roots(), Arc::clone(&created), Arc::clone(&observations)));
        Self { clients, doomed, created, observations }
    }

    /// Ends the load, and checks on every replica that everything acknowledged holds.
    pub(crate) async fn raise(self, fleet: &[Process]) {
        conclude(self.clients, &self.observations).await;
        let convicted: Vec<_> = self.doomed.iter().filter_map(|suspect| suspect.effective_time()).collect();
        assert!(!convicted.is_empty(), "something was revoked meanwhile");
        let last = *convicted.iter().max().unwrap();
        eventually("the last effective time", async || (wall() > last).then_some(())).await;
        let created = self.created.lock().unwrap().clone();
        assert!(!created.is_empty(), "something was created meanwhile");
        for (replica, process) in fleet.iter().enumerate() {
            let mut client = process.root();
            for suspect in self.doomed.iter().filter(|suspect| suspect.effective_time().is_some()) {
                self.observations.ask(&mut client, replica, suspect).await;
                assert_eq!(known(&mut client, &suspect.token).await, Verdict::Revoked);
            }
            for token in &created {
                assert_eq!(known(&mut client, token).await, Verdict::Valid);
            }
        }
    }

    /// Returns the number of acknowledged revocations so far.
    pub(crate) fn revoked(&self) -> usize {
        self.doomed.iter().filter(|suspect| suspect.effective_time().is_some()).count()
    }

    /// Returns the number of acknowledged creations so far.
    pub(crate) fn created(&self) -> usize {
        self.created.lock().unwrap().len()
    }
}

/// Returns the database's verdict, with consistency FULL.
async fn known(client: &mut Client, token: &Made) -> Verdict {
    let consistency = Consistency::Full.into();
    let asked = VerifyRequest { consistency, ..question(&token.secret, &[]) };
    client.verify(asked).await.unwrap().into_inner().verdict()
}

/// Returns how long after now all replicas answer without a gap.
pub(crate) async fn resumption(fleet: &[Process], kept: &Made) -> Duration {
    let ended = Instant::now();
    let mut asking = JoinSet::new();
    for process in fleet {
        asking.spawn(resumed(process.root(), kept.clone(), ended));
    }
    asking.join_all().await.into_iter().max().unwrap()
}

/// Waits for ten responses in a row, and returns when the first of them was requested.
async fn resumed(client: Client, kept: Made, ended: Instant) -> Duration {
    let (mut row, mut first) = (0, ended);
    while row < 10 {
        let asked = Instant::now();
        assert!(asked - ended < Duration::from_secs(30), "serving does not resume");
        let mut client = client.clone();
        // A short timeout: a late response does not count here, and this is also the precision of
        // the result.
        let answer = client.verify(question(&kept.secret, &[]));
        match tokio::time::timeout(Duration::from_millis(100), answer).await {
            Ok(Ok(answer)) => {
                assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
                first = if row == 0 { asked } else { first };
                row += 1;
            }
            Ok(Err(status)) => {
                assert_unavailable(&status);
                row = 0;
                // Slower than refusals arrive.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => row = 0,
        }
    }
    first - ended
}

/// Revokes one token after another on alternating replicas, as long as something may fail.
async fn revoke_on_and_on(fleet: Vec<Client>, doomed: Arc<[Arc<Suspect>]>, observations: Arc<Observations>) {
    let mut turn = 0;
    for suspect in doomed.iter() {
        // Until the revocation is known to be done: an unknown outcome may be either.
        while !observations.has_ended() {
            turn += 1;
            let here = turn % fleet.len();
            let mut client = fleet[here].clone();
            let revoking = client.revoke_token(revocation(&suspect.token.id, ""));
            match tokio::time::timeout(Duration::from_secs(6), revoking).await {
                Ok(Ok(answer)) => {
                    suspect.convict(here, &answer.into_inner());
                    break;
                }
                Ok(Err(status)) => assert_unavailable(&status),
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Creates tokens on alternating replicas, and keeps those whose secrets were returned.
async fn create_on_and_on(
    fleet: Vec<Client>,
    created: Arc<Mutex<Vec<Made>>>,
    observations: Arc<Observations>,
) {
    for mut client in fleet.iter().cycle().cloned() {
        if observations.has_ended() {
            return;
        }
        match tokio::time::timeout(Duration::from_secs(6), client.create_token(ordinary())).await {
            Ok(Ok(answer)) => created.lock().unwrap().push(answer.into_inner().into()),
            Ok(Err(status)) => assert_unavailable(&status),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
