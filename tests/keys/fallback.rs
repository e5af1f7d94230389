//! The durable verifier, used when a token's key is lost: it decides correctly, and no caller can
//! use more than a fair share of it.

use sqlx::Connection as _;
use tokend::api::proto::{CreateTokenResponse, Verdict, VerifyResponse};
use tokend::secret::{DurableCost, TokenId};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use crate::support::client::{created, created_with, forged, ordinary, question, verified};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, cheap, keyring, new_key};
use crate::support::status::{reason, refused};

fn wrong_secret_of(made: &CreateTokenResponse) -> String {
    forged(TokenId::parse(&made.token.as_ref().unwrap().id).unwrap())
}

/// Starts a replica that has lost every previous key, with one hash permit. Its callers' own
/// secrets have been verified already.
async fn forgetful(installation: &Installation, limit: DurableCost, callers: &[&str]) -> Replica {
    let mut config = installation.config();
    config.keyring = keyring(&[&new_key()]);
    config.durable_cost = limit;
    config.hash_permits = 1;
    let replica = installation.serve(config).await;
    for caller in callers {
        verified(&mut replica.client(caller), "", &[]).await;
    }
    replica
}

/// Verifies a secret as soon as Postgres answers in time, which it may not on a busy machine.
async fn asked(replica: &Replica, secret: &str) -> Result<Response<VerifyResponse>, Status> {
    eventually("Postgres answers in time", async || {
        let outcome = replica.root().verify(question(secret, &[])).await;
        let why = outcome.as_ref().err().and_then(reason);
        (why.as_deref() != Some("DATABASE_UNAVAILABLE")).then_some(outcome)
    })
    .await
}

#[tokio::test]
async fn a_wrong_secret_of_a_token_whose_key_is_lost_is_not_found() {
    let installation = Installation::new().await;
    let made = created(&mut installation.serve(installation.config()).await.root(), ordinary()).await;
    let replica = forgetful(&installation, cheap(), &[]).await;
    let mut root = replica.root();

    for _ in 0..3 {
        let answer = verified(&mut root, &wrong_secret_of(&made), &["a"]).await;
        assert_eq!((answer.verdict(), answer.token), (Verdict::NotFound, None));
    }
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);
    assert_eq!(verified(&mut root, &wrong_secret_of(&made), &[]).await.verdict(), Verdict::NotFound);
}

#[tokio::test]
async fn a_hash_above_the_configured_cost_is_not_computed_and_no_verdict_is_made_up() {
    for cost in [(128, 1, 1), (64, 2, 1), (64, 1, 2)] {
        let installation = Installation::new().await;
        let mut config = installation.config();
        config.durable_cost = DurableCost::new(cost.0, cost.1, cost.2).unwrap();
        let dear = installation.serve(config).await;
        let made = created(&mut dear.root(), ordinary()).await;
        let answer = asked(&dear, &made.secret).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Valid);

        let replica = forgetful(&installation, cheap(), &[]).await;

        for secret in [made.secret.clone(), wrong_secret_of(&made)] {
            refused(asked(&replica, &secret).await, Code::Unavailable, "INTERNAL");
        }
    }
}

#[tokio::test]
async fn concurrent_requests_for_one_token_are_all_answered() {
    let installation = Installation::new().await;
    let made = created(&mut installation.serve(installation.config()).await.root(), ordinary()).await;
    let replica = forgetful(&installation, cheap(), &[]).await;

    let asking: JoinSet<_> = (0..20)
        .map(|_| {
            let (mut root, secret) = (replica.root(), made.secret.clone());
            async move { root.verify(question(&secret, &[])).await }
        })
        .collect();

    for answer in asking.join_all().await {
        assert_eq!(answer.unwrap().into_inner().verdict(), Verdict::Valid);
    }
}

#[tokio::test]
async fn attempts_on_one_token_run_one_at_a_time_and_leave_capacity_for_others() {
    let installation = Installation::new().await;
    let before = installation.serve(installation.config()).await;
    let mut root = before.root();
    let gateway = created_with(&mut root, "", &["tokend:verify"]).await.secret;
    let (target, other) = (created(&mut root, ordinary()).await, created(&mut root, ordinary()).await);
    let replica = forgetful(&installation, cheap(), &[&installation.root_secret, &gateway]).await;
    let database = &installation.database;

    // This attempt holds its token's lock until the new MAC is written, which the row lock delays.
    let mut lock = database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT FROM tokens WHERE user_id = 'ada' FOR UPDATE")
        .execute(&mut lock)
        .await
        .unwrap();
    let (mut client, secret) = (replica.root(), target.secret.clone());
    let first = tokio::spawn(async move { client.verify(question(&secret, &[])).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the first attempt", async || (database.count(waiting).await > 0).then_some(())).await;

    let flooding = replica.client(&gateway);
    let mut flood: JoinSet<_> = (0..80)
        .map(|_| {
            let (mut client, secret) = (flooding.clone(), wrong_secret_of(&target));
            async move { client.verify(question(&secret, &[])).await }
        })
        .collect();
    // Half of the permits are the caller's share; the rest is refused, and no attempt has run meanwhile.
    for _ in 64..80 {
        let turned_away = flood.join_next().await.unwrap().unwrap();
        refused(turned_away, Code::ResourceExhausted, "CALLER_OVER_SHARE");
    }
    let wrong = replica.root().verify(question(&wrong_secret_of(&other), &[])).await;
    assert_eq!(wrong.unwrap().into_inner().verdict(), Verdict::NotFound, "another caller, another token");
    lock.close().await.unwrap();

    assert_eq!(first.await.unwrap().unwrap().into_inner().verdict(), Verdict::Valid);
    let (answered, timed_out): (Vec<_>, Vec<_>) = flood.join_all().await.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty(), "none of the 64 had a turn");
    for answer in answered {
        assert_eq!(answer.unwrap().into_inner().verdict(), Verdict::NotFound);
    }
    for outcome in timed_out {
        refused(outcome, Code::Unavailable, "OVERLOADED");
    }
}

#[tokio::test]
async fn a_wrong_mac_of_a_key_in_the_ring_is_final() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let corrupt_macs = "UPDATE tokens SET mac = decode(repeat('00', 32), 'hex') WHERE user_id = 'ada'";
    assert_eq!(installation.database.execute(corrupt_macs).await, 1);

    let answer = verified(&mut root, &made.secret, &[]).await;

    assert_eq!(answer.verdict(), Verdict::NotFound, "the durable verifier was not asked");
}
