//! Three replicas as processes on one Postgres, and tokens revoked at random on any of them. No
//! request sent after a revocation's `effective_time` gets VALID. The long form measures how long
//! the other replicas take to refuse, when idle and at half of the fleet's capacity, prints the
//! delays and writes them below `target/tmp`:
//!
//! `TOKEND_LONG=1 cargo test --release --test engine revocations -- --nocapture`

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::fleet::{Process, long, report, url};
use super::setup::{Made, made};
use super::witness::{Observations, Suspect, conclude, wall, watch};
use crate::support::client::{revocation, revoked};
use crate::support::replica::Installation;
use crate::support::{eventually, in_time};

const REPLICAS: u32 = 3;

async fn fleet(installation: &Installation) -> Vec<Process> {
    let url = url(&installation.database);
    let mut fleet = Vec::new();
    for _ in 0..REPLICAS {
        fleet.push(Process::start(installation, &url, &[]).await);
    }
    fleet
}

async fn suspects(process: &Process, count: usize) -> Vec<Arc<Suspect>> {
    let mut root = process.root();
    let mut suspects = Vec::with_capacity(count);
    for _ in 0..count {
        suspects.push(Suspect::new(made(&mut root).await));
    }
    suspects
}

/// Revokes each token on some replica while the others verify it without a pause, until they refuse.
async fn revoke_all(fleet: &[Process], suspects: &[Arc<Suspect>], observations: &Arc<Observations>) {
    let mut clients: Vec<_> = fleet.iter().map(Process::root).collect();
    for (number, suspect) in suspects.iter().enumerate() {
        // The last bytes of an id are random.
        let here = (usize::from(suspect.token.id.as_bytes()[21]) + number) % fleet.len();
        let mut asking = Vec::new();
        for (there, client) in clients.iter().enumerate().filter(|(there, _)| *there != here) {
            let (mut client, observations, suspect) =
                (client.clone(), Arc::clone(observations), Arc::clone(suspect));
            for _ in 0..2 {
                observations.ask(&mut client, there, &suspect).await;
            }
            asking.push(tokio::spawn(async move {
                while !suspect.is_refused_by(there) {
                    observations.ask(&mut client, there, &suspect).await;
                }
            }));
        }
        suspect.convict(here, &revoked(&mut clients[here], &suspect.token.id, "").await);
        // On the replica that revoked it, it is effective at once.
        observations.ask(&mut clients[here], here, suspect).await;
        assert!(suspect.is_refused_by(here));
        for task in asking {
            in_time("the refusal", task).await.unwrap();
        }
    }
}

/// Verifies every token once more on every replica, when all revocations are effective.
async fn none_comes_back(fleet: &[Process], suspects: &[Arc<Suspect>], observations: &Observations) {
    let last = suspects.iter().filter_map(|suspect| suspect.effective_time()).max().unwrap();
    eventually("the last effective time", async || (wall() > last).then_some(())).await;
    for (replica, process) in fleet.iter().enumerate() {
        let mut client = process.root();
        for suspect in suspects {
            observations.ask(&mut client, replica, suspect).await;
            assert!(suspect.is_refused_by(replica));
        }
    }
}

fn describe(name: &str, delays: &Histogram<u64>) -> String {
    let millis = |quantile| Duration::from_micros(delays.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    format!(
        "{name}: {} refusals by other replicas, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        delays.len(),
        millis(0.5),
        millis(0.99),
        millis(0.999),
        millis(1.0)
    )
}

/// Writes the delays for `cargo bench --bench verify -- plot-delays`: milliseconds, one per line.
fn write_down(name: &str, delays: &Histogram<u64>) {
    let mut lines = String::new();
    for value in delays.iter_recorded() {
        let millis = Duration::from_micros(value.value_iterated_to()).as_secs_f64() * 1e3;
        for _ in 0..value.count_since_last_iteration() {
            writeln!(lines, "{millis:.3}").unwrap();
        }
    }
    std::fs::write(format!("{}/revocation-delay-{name}.txt", env!("CARGO_TARGET_TMPDIR")), lines).unwrap();
}

/// Revokes `count` tokens while clients verify all of them.
async fn measure(name: &str, fleet: &[Process], count: usize, clients: u32, pause: Duration) {
    // The load is the verification of tokens that are never revoked.
    let load: Arc<[_]> = suspects(&fleet[0], 100.min(count)).await.into();
    let doomed = suspects(&fleet[0], count).await;
    let (observations, load_seen) = (Observations::new(), Observations::new());
    let watching = watch(fleet, clients, pause, &load, &load_seen);
    let began = Instant::now();
    revoke_all(fleet, &doomed, &observations).await;
    let rate = load_seen.rate_since(0, began);
    if clients > 0 {
        conclude(watching, &load_seen).await;
    }
    none_comes_back(fleet, &doomed, &observations).await;
    assert_eq!(observations.unavailable.load(Ordering::Relaxed), 0);
    let delays = observations.delays.lock().unwrap();
    report(&format!("{} beside {rate:.0} answers/s", describe(name, &delays)));
    if long() {
        write_down(name, &delays);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_holds_on_every_replica_from_its_effective_time() {
    let installation = Installation::new().await;
    let fleet = fleet(&installation).await;
    if !long() {
        measure("under-load", &fleet, 60, 2, Duration::from_millis(20)).await;
        return;
    }
    measure("idle", &fleet, 3_000, 0, Duration::ZERO).await;
    let capacity = capacity(&fleet).await;
    report(&format!("capacity of the fleet: {capacity:.0} answers/s"));
    let pause = Duration::from_secs_f64(f64::from(CLIENTS * REPLICAS) / (capacity / 2.0));
    measure("half-load", &fleet, 3_000, CLIENTS, pause).await;
}

/// The number of clients per replica that make the load.
const CLIENTS: u32 = 32;

/// Measures how many responses per second the fleet gives to clients that never pause.
async fn capacity(fleet: &[Process]) -> f64 {
    let load: Arc<[_]> = suspects(&fleet[0], 500).await.into();
    let observations = Observations::new();
    let watching = watch(fleet, CLIENTS, Duration::ZERO, &load, &observations);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, began) = (observations.answers.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let capacity = observations.rate_since(before, began);
    conclude(watching, &observations).await;
    capacity
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_revocations_at_once_hold_on_every_replica() {
    let installation = Installation::new().await;
    let fleet = fleet(&installation).await;
    let doomed: Arc<[_]> = suspects(&fleet[0], 60).await.into();
    let observations = Observations::new();
    let watching = watch(&fleet, 2, Duration::from_millis(5), &doomed, &observations);
    let mut revoking = tokio::task::JoinSet::new();
    for (number, suspect) in doomed.iter().enumerate() {
        let (here, suspect) = (number % fleet.len(), Arc::clone(suspect));
        let mut client = fleet[here].root();
        revoking.spawn(async move {
            let answer = client.revoke_token(revocation(&suspect.token.id, "")).await.unwrap();
            suspect.convict(here, &answer.into_inner());
        });
    }
    while let Some(ended) = revoking.join_next().await {
        ended.unwrap();
    }

    none_comes_back(&fleet, &doomed, &observations).await;

    conclude(watching, &observations).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effective_time_is_that_of_the_slowest_replica() {
    let installation = Installation::new().await;
    let url = url(&installation.database);
    let quick = Process::start(&installation, &url, &["--max-staleness", "100ms"]).await;
    let mut root = quick.root();
    let lead = async |root: &mut _| {
        let token: Made = made(root).await;
        let before = wall();
        let answer = revoked(root, &token.id, "").await;
        crate::support::client::nanos(answer.effective_time.as_ref()) - before
    };
    let second = 1_000_000_000;

    // A replica that is not registered yet answers from the database; from its cache only after that.
    let known = async |replicas| {
        eventually("they are known", async || {
            let known = installation.database.count("SELECT count(*) FROM replicas").await;
            (known == replicas).then_some(())
        })
        .await;
    };
    known(1).await;
    // The database's clock is this machine's.
    let quickly = lead(&mut root).await;
    assert!((second / 10..30 * second).contains(&quickly), "{quickly} ns");
    let slow =
        Process::start(&installation, &url, &["--max-staleness", "50s", "--outage-grace", "50s"]).await;
    known(2).await;
    assert!(lead(&mut root).await >= 100 * second);
    drop(slow);
    assert!(lead(&mut root).await >= 100 * second, "it may still answer, for all that the others know");

    // Its row counts for a minute longer than its bound.
    let age = "UPDATE replicas SET renew_time = now() - interval '159 s' WHERE bound > interval '1 s'";
    assert_eq!(installation.database.execute(age).await, 1);
    assert!(lead(&mut root).await >= 100 * second);
    installation.database.execute(age.replace("159", "161")).await;
    assert!(
        lead(&mut root).await >= 100 * second,
        "a server that has just begun may not know of its last renewal"
    );
    let begun = "UPDATE server_mark SET mark_time = now() - interval '161 s'";
    assert_eq!(installation.database.execute(begun).await, 1);
    assert!(lead(&mut root).await < 100 * second);
}
