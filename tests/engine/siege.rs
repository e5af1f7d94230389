//! Replicas under load while something fails: clients ask on and on (`witness` judges each answer), and tokens
//! are revoked and created all the time. What was acknowledged must hold in the end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokend::api::proto::{Consistency, Verdict, VerifyRequest};
use tokio::task::JoinSet;

use super::fleet::Process;
use super::setup::{Made, assert_unavailable, made};
use super::witness::{Seen, Suspect, conclude, wall, watch};
use crate::support::client::{Client, ordinary, question, revocation};
use crate::support::eventually;

/// The clients, and what they have been told.
pub(crate) struct Siege {
    clients: JoinSet<()>,
    doomed: Arc<[Arc<Suspect>]>,
    created: Arc<Mutex<Vec<Made>>>,
    seen: Arc<Seen>,
}

impl Siege {
    /// Makes tokens to be revoked, and lets the clients loose.
    pub(crate) async fn lay(fleet: &[Process], tokens: usize) -> Self {
        let mut doomed = Vec::new();
        let mut root = fleet[0].root();
        for _ in 0..tokens {
            doomed.push(Suspect::new(made(&mut root).await));
        }
        let doomed: Arc<[_]> = doomed.into();
        let (seen, created) = (Seen::new(), Arc::default());
        let mut clients = watch(fleet, 3, Duration::from_millis(5), &doomed, &seen);
        let roots = || fleet.iter().map(Process::root).collect::<Vec<_>>();
        clients.spawn(revoke_on_and_on(roots(), Arc::clone(&doomed), Arc::clone(&seen)));
        clients.spawn(create_on_and_on(roots(), Arc::clone(&created), Arc::clone(&seen)));
        Self { clients, doomed, created, seen }
    }

    /// Ends it, and checks that everything that was acknowledged holds on every replica.
    pub(crate) async fn raise(self, fleet: &[Process]) {
        conclude(self.clients, &self.seen).await;
        let convicted: Vec<_> = self.doomed.iter().filter_map(|suspect| suspect.effective_time()).collect();
        assert!(!convicted.is_empty(), "something was revoked meanwhile");
        let last = *convicted.iter().max().unwrap();
        eventually("the last effective time", async || (wall() > last).then_some(())).await;
        let created = self.created.lock().unwrap().clone();
        assert!(!created.is_empty(), "something was created meanwhile");
        for (replica, process) in fleet.iter().enumerate() {
            let mut client = process.root();
            for suspect in self.doomed.iter().filter(|suspect| suspect.effective_time().is_some()) {
                self.seen.ask(&mut client, replica, suspect).await;
                assert_eq!(known(&mut client, &suspect.token).await, Verdict::Revoked);
            }
            for token in &created {
                assert_eq!(known(&mut client, token).await, Verdict::Valid);
            }
        }
    }

    /// Returns how many revocations have been acknowledged so far.
    pub(crate) fn revoked(&self) -> usize {
        self.doomed.iter().filter(|suspect| suspect.effective_time().is_some()).count()
    }

    /// Returns how many creations have been acknowledged so far.
    pub(crate) fn created(&self) -> usize {
        self.created.lock().unwrap().len()
    }
}

/// Asks what the database itself says.
async fn known(client: &mut Client, token: &Made) -> Verdict {
    let consistency = Consistency::Full.into();
    let asked = VerifyRequest { consistency, ..question(&token.secret, &[]) };
    client.verify(asked).await.unwrap().into_inner().verdict()
}

/// Returns how long after now each replica begins to answer without a gap.
pub(crate) async fn resumption(fleet: &[Process], kept: &Made) -> Duration {
    let ended = Instant::now();
    let mut asking = JoinSet::new();
    for process in fleet {
        asking.spawn(resumed(process.root(), kept.clone(), ended));
    }
    asking.join_all().await.into_iter().max().unwrap()
}

/// Waits for ten answers in a row, and returns when the first of them was asked for.
async fn resumed(client: Client, kept: Made, ended: Instant) -> Duration {
    let (mut row, mut first) = (0, ended);
    while row < 10 {
        let asked = Instant::now();
        assert!(asked - ended < Duration::from_secs(30), "serving does not resume");
        let mut client = client.clone();
        // Not for long: an answer that would come late is none here, and what is found is no more exact than this.
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
                // Not as fast as refusals come.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => row = 0,
        }
    }
    first - ended
}

/// Revokes one token after the other on replicas in turn, for as long as something may fail.
async fn revoke_on_and_on(fleet: Vec<Client>, doomed: Arc<[Arc<Suspect>]>, seen: Arc<Seen>) {
    let mut turn = 0;
    for suspect in doomed.iter() {
        // Until it is known to have been done: an outcome that is not known may be either.
        while !seen.has_ended() {
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

/// Creates tokens on replicas in turn, and keeps those whose secrets were answered.
async fn create_on_and_on(fleet: Vec<Client>, created: Arc<Mutex<Vec<Made>>>, seen: Arc<Seen>) {
    for mut client in fleet.iter().cycle().cloned() {
        if seen.has_ended() {
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
