//! Three replicas as processes on one Postgres, and users who are disabled and enabled at random on any of them while
//! others create, rotate and verify their tokens. No request that is sent after a disabling's `effective_time` gets
//! VALID, no token is created after its answer, and enabling brings back exactly what was usable. The long form makes at
//! least a hundred thousand verdicts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokend::api::proto::{CreateTokenRequest, DisableUserRequest, EnableUserRequest, Verdict};
use tokio::task::JoinSet;
use tonic::Status;

use super::fleet::{Process, long, report, url};
use super::setup::{Made, assert_unavailable};
use super::witness::wall;
use crate::support::client::{Client, created, nanos, ordinary, question, rotation, verified};
use crate::support::eventually;
use crate::support::replica::Installation;
use crate::support::status::reason;

const REPLICAS: usize = 3;

/// The clients per replica that verify.
const CLIENTS: usize = 8;

/// A user, and what is known of them.
#[derive(Debug)]
struct Suspect {
    user_id: String,
    tokens: Vec<Made>,
    /// From when every token must be refused, once that is known.
    effective: OnceLock<i128>,
    /// Whether the disabling was answered.
    answered: AtomicBool,
    ended: AtomicBool,
}

impl Suspect {
    fn token(&self) -> CreateTokenRequest {
        CreateTokenRequest { user_id: self.user_id.clone(), ..ordinary() }
    }
}

/// Verifies the user's tokens without a pause, until the end.
async fn verify(mut client: Client, suspect: Arc<Suspect>, answers: Arc<AtomicU64>) {
    let mut next = 0;
    while !suspect.ended.load(Ordering::Relaxed) {
        let (effective, sent) = (suspect.effective.get().copied(), wall());
        let token = &suspect.tokens[next % suspect.tokens.len()];
        next += 1;
        match client.verify(question(&token.secret, &[])).await {
            Ok(answer) => {
                answers.fetch_add(1, Ordering::Relaxed);
                let verdict = answer.into_inner().verdict();
                assert!([Verdict::Valid, Verdict::Disabled].contains(&verdict), "{verdict:?}");
                let late = effective.map_or(0, |effective| sent - effective);
                assert!(verdict != Verdict::Valid || late <= 0, "VALID {late} ns after the effective time");
            }
            Err(status) => assert_unavailable(&status),
        }
    }
}

/// Creates and rotates tokens of the user until that is refused; returns the secrets that should be usable once the
/// user is enabled.
async fn create(mut client: Client, suspect: Arc<Suspect>) -> Vec<String> {
    let mut secrets = Vec::new();
    let refused =
        |status: &Status| assert_eq!(reason(status).as_deref(), Some("USER_DISABLED"), "{status:?}");
    loop {
        let too_late = suspect.answered.load(Ordering::Acquire);
        let made = match client.create_token(suspect.token()).await {
            Ok(made) => made.into_inner(),
            Err(status) => {
                refused(&status);
                return secrets;
            }
        };
        assert!(!too_late, "created after the disabling was answered");
        match client.rotate_token(rotation(&made.token.unwrap().id)).await {
            Ok(rotated) => secrets.push(rotated.into_inner().secret),
            Err(status) => {
                refused(&status);
                secrets.push(made.secret);
            }
        }
    }
}

/// Waits for a moment of the database's clock, which is this machine's.
async fn until(moment: i128) {
    eventually("the effective time", async || (wall() > moment).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_is_refused_on_every_replica_from_the_effective_time() {
    let installation = Installation::new().await;
    let url = url(&installation.database);
    let mut fleet = Vec::new();
    for _ in 0..REPLICAS {
        fleet.push(Process::start(&installation, &url, &[]).await);
    }
    let (answers, wanted) = (Arc::new(AtomicU64::new(0)), if long() { 100_000 } else { 5_000 });
    let (mut round, mut made_meanwhile) = (0, 0);
    while round < REPLICAS || answers.load(Ordering::Relaxed) < wanted {
        let (here, there) = (round % REPLICAS, (round + 1) % REPLICAS);
        let (mut disabling, mut enabling) = (fleet[here].root(), fleet[there].root());
        let user_id = format!("user-{round}");
        let mut tokens = Vec::new();
        for _ in 0..8 {
            let request = CreateTokenRequest { user_id: user_id.clone(), ..ordinary() };
            tokens.push(Made::from(created(&mut disabling, request).await));
        }
        let suspect = Arc::new(Suspect {
            user_id: user_id.clone(),
            tokens,
            effective: OnceLock::new(),
            answered: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let (mut verifying, mut creating) = (JoinSet::new(), JoinSet::new());
        for process in &fleet {
            for _ in 0..CLIENTS {
                verifying.spawn(verify(process.root(), Arc::clone(&suspect), Arc::clone(&answers)));
            }
            creating.spawn(create(process.root(), Arc::clone(&suspect)));
        }
        let before = answers.load(Ordering::Relaxed);
        eventually("verdicts beside creations", async || {
            (answers.load(Ordering::Relaxed) > before + 200).then_some(())
        })
        .await;

        let request = DisableUserRequest { user_id: user_id.clone(), ..Default::default() };
        let answer = disabling.disable_user(request).await.unwrap().into_inner();
        suspect.answered.store(true, Ordering::Release);
        let effective = nanos(answer.effective_time.as_ref());
        suspect.effective.set(effective).unwrap();
        let mut secrets: Vec<_> = suspect.tokens.iter().map(|token| token.secret.clone()).collect();
        while let Some(ended) = creating.join_next().await {
            secrets.extend(ended.unwrap());
        }
        made_meanwhile += secrets.len() - suspect.tokens.len();
        until(effective).await;
        let late = answers.load(Ordering::Relaxed);
        eventually("verdicts after the effective time", async || {
            (answers.load(Ordering::Relaxed) > late + 400).then_some(())
        })
        .await;
        for process in &fleet {
            let mut client = process.root();
            for secret in &secrets {
                assert_eq!(verified(&mut client, secret, &[]).await.verdict(), Verdict::Disabled);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        suspect.ended.store(true, Ordering::Relaxed);
        while let Some(ended) = verifying.join_next().await {
            ended.unwrap();
        }

        let request = EnableUserRequest { user_id, ..Default::default() };
        let answer = enabling.enable_user(request).await.unwrap().into_inner();
        until(nanos(answer.effective_time.as_ref())).await;
        for process in &fleet {
            let mut client = process.root();
            for secret in &secrets {
                assert_eq!(verified(&mut client, secret, &[]).await.verdict(), Verdict::Valid);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        round += 1;
    }
    assert!(made_meanwhile > 0, "nothing was created beside a disabling");
    let answers = answers.load(Ordering::Relaxed);
    report(&format!(
        "{answers} verdicts in {round} rounds, {made_meanwhile} tokens made beside them, none wrong"
    ));
}
