//! A process with a local verifier that is stopped while it judges: after it resumes, its verdicts
//! are no older than declared.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokend::api::proto::create_token_request::Expiration;
use tokend_client::{LocalConfig, Scopes, Verdict, Verifier, VerifyRequest};
use tokend_core::boot_instant::BootInstant;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::asking::{client_at, scopes};
use crate::support::client::{created, ordinary, revoked, texts};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

/// More than two heartbeats of the server, so that most is answered locally; and how long the
/// process is stopped.
const STALENESS: Duration = Duration::from_millis(700);
const PAUSE: Duration = Duration::from_millis(1_600);
const CHILD: &str = "TOKEND_TEST_PAUSED";

/// So many that judging takes most of the time: the process is nearly always stopped while it judges.
fn many() -> Vec<String> {
    (0..60).map(|number| format!("repo:some{number}")).collect()
}

fn required() -> Scopes {
    scopes(&many().iter().map(String::as_str).collect::<Vec<_>>())
}

/// The process that is stopped: prints when it has cached the token, and when the token was last
/// VALID, by the boot clock and the wall clock. Without its variable it tests nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "how it is heard")]
async fn the_process_that_is_paused() {
    let Ok(parameters) = std::env::var(CHILD) else { return };
    let [address, own, secret] = parameters.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let client = client_at(address.parse().unwrap(), own);
    let verifier = Verifier::local(client, LocalConfig::default().staleness(STALENESS)).unwrap();
    let required = required();
    let question = VerifyRequest::new(secret).required_scopes(&required);
    eventually("the token is held", async || {
        verifier.verify(&question).await.unwrap();
        verifier.try_verify(&question)
    })
    .await;
    println!("\nheld");
    let mut last = BootInstant::now();
    loop {
        let Some(answer) = verifier.try_verify(&question) else {
            // Not known locally for a moment. What tokend is asked is not under test.
            match verifier.verify(&question).await {
                Ok(answer) if answer.verdict != Verdict::Valid => break,
                _ => continue,
            }
        };
        if answer.verdict != Verdict::Valid {
            break;
        }
        last = BootInstant::now();
    }
    println!("\nlast {} {}", last.boot, last.wall);
}

/// Stops a process that judges a token while the token ends; returns how long after that it was
/// still VALID, according to the process. None: a busy machine was not ready before the token's end.
async fn late(replica: &Replica, expires: bool) -> Option<Duration> {
    let mut admin = replica.root();
    let ttl = prost_types::Duration { seconds: 4, nanos: 0 };
    let request = tokend::api::proto::CreateTokenRequest {
        scopes: texts(&many().iter().map(String::as_str).collect::<Vec<_>>()),
        expiration: Some(if expires { Expiration::Ttl(ttl) } else { Expiration::NoExpiration(true) }),
        ..ordinary()
    };
    let made = created(&mut admin, request).await;
    let token = made.token.unwrap();
    let parameters = format!("{} {} {}", replica.address, replica.installation.root_secret, made.secret);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pauses::the_process_that_is_paused", "--nocapture"])
        .env(CHILD, parameters)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hear = async |word: &str| loop {
        let line = in_time("what the process says", lines.next_line()).await.unwrap().unwrap();
        if let Some(rest) = line.strip_prefix(word) {
            return rest.trim().to_owned();
        }
    };
    hear("held").await;
    // At a random moment: at once, it would be stopped about where it was when it said so.
    let random = made.secret.bytes().fold(0, |hash, byte| (hash * 31 + u64::from(byte)) % 20_000);
    tokio::time::sleep(Duration::from_millis(10) + Duration::from_micros(random)).await;

    kill_process(pid, Signal::STOP).unwrap();
    let ended = if expires {
        let end = token.expire_time.unwrap();
        let end = end.seconds * 1_000_000_000 + i64::from(end.nanos);
        let left = u64::try_from(end - BootInstant::now().wall).ok()?;
        // The length of the pause is what is tested.
        tokio::time::sleep(Duration::from_nanos(left) + Duration::from_millis(200)).await;
        end
    } else {
        revoked(&mut admin, &token.id, "").await;
        let committed = BootInstant::now().boot;
        tokio::time::sleep(PAUSE).await;
        committed
    };
    kill_process(pid, Signal::CONT).unwrap();

    let last = hear("last").await;
    let [boot, wall] = last.split(' ').map(|number| number.parse::<i64>().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{last}")
    };
    in_time("its end", child.wait()).await.unwrap();
    Some(Duration::from_nanos(u64::try_from(if expires { wall } else { boot } - ended).unwrap_or(0)))
}

/// Two of three tries must succeed: a pause between the last look at the clock and the moment at
/// which the caller has the answer cannot be detected, and hits about one try of a hundred in a
/// build without optimisation.
async fn holds(expires: bool, bound: Duration) {
    let replica = Replica::start().await;
    let mut tries = Vec::new();
    for _ in 0..10 {
        tries.extend(late(&replica, expires).await);
        if tries.len() == 3 {
            break;
        }
    }
    assert_eq!(tries.len(), 3, "the process was ready too late");
    assert!(tries.iter().filter(|late| **late > bound).count() < 2, "VALID so long after: {tries:?}");
}

#[tokio::test]
async fn a_token_that_is_revoked_while_the_process_is_paused_is_not_valid_after_it() {
    holds(false, STALENESS).await;
}

#[tokio::test]
async fn a_token_that_expires_while_the_process_is_paused_is_not_valid_after_it() {
    holds(true, Duration::ZERO).await;
}
