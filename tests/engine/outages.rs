//! Three replicas as processes, constant revocations, and one failure after another: Postgres
//! frozen, killed, restarted; its connections cut, held, slowed or swallowed; a replica frozen.
//! Verdicts stay right or UNAVAILABLE (`fault_test` and `witness` check each), and serving resumes by
//! itself.
//!
//! `TOKEND_LONG=1 cargo test --release --test engine outages -- --nocapture` repeats everything
//! five times
//! and prints how soon after the end of each failure every replica answered again.

use std::time::Duration;

use super::fault_test::{FaultTest, resumption};
use super::fleet::{Process, long, report};
use super::setup::{Made, made};
use crate::support::database::Database;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Installation;
use crate::support::server::Server;

/// Longer than the timeouts of a poll and of a read, and than the staleness bound of the cache.
const FAILURE: Duration = Duration::from_secs(2);

/// The failures, in order.
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
        let proxy = Proxy::to(server.socket_dir(), LinkState::Open).await;
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
            Failure::Cut => self.proxy.set(LinkState::Cut),
            Failure::Held => self.proxy.set(LinkState::Stalled),
            Failure::Swallowed => self.proxy.lose(),
            Failure::Slow => self.proxy.set(LinkState::Slow(Duration::from_millis(150))),
            Failure::ReplicaFrozen => self.fleet[1].freeze(),
            Failure::Restarted => self.server.stop(),
            Failure::Killed => self.server.kill(),
        }
        tokio::time::sleep(FAILURE).await;
    }

    fn end(&mut self, failure: Failure) {
        match failure {
            Failure::Frozen => self.server.thaw(),
            Failure::Cut | Failure::Held | Failure::Slow => self.proxy.set(LinkState::Open),
            // They stay swallowed: what new connections can do from the start must be done by now.
            Failure::Swallowed => {}
            Failure::ReplicaFrozen => self.fleet[1].thaw(),
            Failure::Restarted | Failure::Killed => self.server.go_on(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_faults_no_answer_is_wrong_and_serving_resumes() {
    let mut scene = Scene::set().await;
    let (rounds, tokens) = if long() { (5, 1_000) } else { (1, 120) };
    let fault_test = FaultTest::start(&scene.fleet, tokens).await;

    for _ in 0..rounds {
        for failure in FAILURES {
            scene.fail(failure).await;
            scene.end(failure);
            let resumption = resumption(&scene.fleet, &scene.kept).await;
            let after = resumption.as_secs_f64() * 1e3;
            report(&format!("{failure:?}: every replica answers {after:.1} ms after its end"));
        }
    }

    fault_test.raise(&scene.fleet).await;
}
