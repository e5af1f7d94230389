//! Three replicas as processes, tokens revoked all the time, and one thing after the other that fails:
//! Postgres frozen, killed, restarted; its connections cut, held, slowed or swallowed; a replica frozen.
//! Answers stay right or are UNAVAILABLE (`witness` checks each), and serving resumes by itself.
//!
//! `TOKEND_LONG=1 cargo test --release --test engine outages -- --nocapture` goes through it all five times
//! and prints how soon after the end of each failure every replica answered again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokend::grpc::proto::Verdict;
use tokio::task::JoinSet;

use super::fleet::{Process, long, tell};
use super::setup::{Made, assert_unavailable, made};
use super::witness::{Seen, Suspect, conclude, wall, watch};
use crate::support::client::{Client, question, revocation};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::proxy::{Proxy, Way};
use crate::support::replica::Installation;
use crate::support::server::Server;

/// Longer than a poll or a read is waited for, and than the cache may be old.
const FAILURE: Duration = Duration::from_secs(2);

/// What fails, in this order.
const FAILURES: [Failure; 8] = [
    Failure::Frozen,
    Failure::Cut,
    Failure::Held,
    Failure::Swallowed,
    Failure::Slow,
    Failure::ReplicaFrozen,
    Failure::Restarted,
    Failure::Killed,
];

#[derive(Debug, Clone, Copy)]
enum Failure {
    Frozen,
    Cut,
    Held,
    Swallowed,
    Slow,
    ReplicaFrozen,
    Restarted,
    Killed,
}

struct Scene {
    server: Server,
    proxy: Proxy,
    fleet: Vec<Process>,
    /// Never revoked.
    kept: Made,
}

impl Scene {
    async fn set() -> Self {
        let server = Server::start();
        let installation = Installation::on(Database::migrated_on(server.socket_dir()).await).await;
        let proxy = Proxy::to(server.socket_dir(), Way::Open).await;
        let url = proxy.url(installation.database.name());
        let mut fleet = Vec::new();
        for _ in 0..3 {
            fleet.push(Process::start(&installation, &url, &[]).await);
        }
        let kept = made(&mut fleet[0].root()).await;
        Self { server, proxy, fleet, kept }
    }

    async fn fail(&mut self, failure: Failure) {
        match failure {
            Failure::Frozen => self.server.freeze(),
            Failure::Cut => self.proxy.turn(Way::Cut),
            Failure::Held => self.proxy.turn(Way::Held),
            Failure::Swallowed => self.proxy.lose(),
            Failure::Slow => self.proxy.turn(Way::Slow(Duration::from_millis(150))),
            Failure::ReplicaFrozen => self.fleet[1].freeze(),
            Failure::Restarted => self.server.stop(),
            Failure::Killed => self.server.kill(),
        }
        if !matches!(failure, Failure::Swallowed) {
            tokio::time::sleep(FAILURE).await;
        }
    }

    fn end(&mut self, failure: Failure) {
        match failure {
            Failure::Frozen => self.server.thaw(),
            Failure::Cut | Failure::Held | Failure::Slow => self.proxy.turn(Way::Open),
            Failure::Swallowed => {}
            Failure::ReplicaFrozen => self.fleet[1].thaw(),
            Failure::Restarted | Failure::Killed => self.server.go_on(),
        }
    }

    /// Returns how long after now each replica begins to answer without a gap.
    async fn resumption(&self) -> Duration {
        let ended = Instant::now();
        let mut asking = JoinSet::new();
        for process in &self.fleet {
            asking.spawn(resumed(process.root(), self.kept.clone(), ended));
        }
        asking.join_all().await.into_iter().max().unwrap()
    }
}

/// Waits for ten answers in a row, and returns when the first of them was asked for.
async fn resumed(client: Client, kept: Made, ended: Instant) -> Duration {
    let (mut row, mut first) = (0, ended);
    while row < 10 {
        let asked = Instant::now();
        assert!(asked - ended < Duration::from_secs(30), "serving does not resume");
        let mut client = client.clone();
        // Not for long: an answer that would come late is none here.
        let answer = client.verify(question(&kept.secret, &[]));
        match tokio::time::timeout(Duration::from_millis(500), answer).await {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_no_answer_is_wrong_and_serving_resumes() {
    let mut scene = Scene::set().await;
    let (rounds, tokens) = if long() { (5, 1_000) } else { (1, 120) };
    let mut doomed = Vec::new();
    let mut root = scene.fleet[0].root();
    for _ in 0..tokens {
        doomed.push(Suspect::new(made(&mut root).await));
    }
    let doomed: Arc<[_]> = doomed.into();
    let seen = Seen::new();
    let mut watching = watch(&scene.fleet, 3, Duration::from_millis(5), &doomed, &seen);
    let clients = scene.fleet.iter().map(Process::root).collect();
    watching.spawn(revoke_on_and_on(clients, Arc::clone(&doomed), Arc::clone(&seen)));

    for _ in 0..rounds {
        for failure in FAILURES {
            scene.fail(failure).await;
            scene.end(failure);
            let resumption = scene.resumption().await;
            tell(&format!("{failure:?}: every replica answers {resumption:.0?} after its end"));
        }
    }

    conclude(watching, &seen).await;
    let convicted: Vec<_> = doomed.iter().filter_map(|suspect| suspect.effective_time()).collect();
    assert!(!convicted.is_empty(), "something was revoked meanwhile");
    let last = *convicted.iter().max().unwrap();
    eventually("the last effective time", async || (wall() > last).then_some(())).await;
    for (replica, process) in scene.fleet.iter().enumerate() {
        let mut client = process.root();
        for suspect in doomed.iter().filter(|suspect| suspect.effective_time().is_some()) {
            seen.ask(&mut client, replica, suspect).await;
        }
    }
}
