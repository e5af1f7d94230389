//! Revoking all tokens of a user in one step that no concurrent creation escapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection as _, Executor as _};
use tokend::api::proto::{
    CreateTokenRequest, ListTokensRequest, RevokeUserTokensRequest, TokenState, Verdict,
};
use tonic::Code;

use super::{a_statement_waits, copy_token, got, seconds, verdict};
use crate::support::client::{Client, created, created_with, leaver, nanos, ordinary, revoked, rotation};
use crate::support::replica::{Installation, Replica};
use crate::support::status::{fields, refused};
use crate::support::{eventually, in_time};

const ALIVE: &str = "SELECT count(*) FROM tokens WHERE user_id = 'ada' AND revoke_time IS NULL";

async fn left(client: &mut Client, user_id: &str) -> i64 {
    client.revoke_user_tokens(leaver(user_id)).await.unwrap().into_inner().revoked_count
}

#[tokio::test]
async fn all_tokens_of_the_user_are_revoked_and_no_others() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(created(&mut root, ordinary()).await);
    }
    let before = made.pop().unwrap().token.unwrap();
    revoked(&mut root, &before.id, "before").await;
    let elsewhere = created_with(&mut root, "acme", &[]).await;
    for one in made.iter().chain([&elsewhere]) {
        assert_eq!(verdict(&mut root, &one.secret).await, Verdict::Valid);
    }
    let request = RevokeUserTokensRequest { reason: "has left".to_owned(), ..leaver("ada") };

    let answer = root.revoke_user_tokens(request).await.unwrap().into_inner();

    assert_eq!(answer.revoked_count, 2);
    for one in &made {
        assert_eq!(verdict(&mut root, &one.secret).await, Verdict::Revoked, "at once");
        let token = got(&mut root, &one.token.as_ref().unwrap().id).await;
        assert_eq!((token.state(), &*token.revoke_reason), (TokenState::Revoked, "has left"));
        assert!(nanos(answer.effective_time.as_ref()) >= nanos(token.revoke_time.as_ref()));
    }
    assert_eq!(got(&mut root, &before.id).await.revoke_reason, "before");
    assert_eq!(verdict(&mut root, &elsewhere.secret).await, Verdict::Valid, "another organization's ada");
    assert_eq!(left(&mut root, "ada").await, 0);
    assert_eq!(left(&mut root, "nobody").await, 0);
    let events = "SELECT count(*) FROM token_events WHERE kind = 'revoked'";
    assert_eq!(replica.installation.database.count(events).await, 3);
}

#[tokio::test]
async fn one_token_that_the_caller_may_not_manage_keeps_all_of_them() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut writer = replica.caller("acme", &["tokend:write"]).await;
    let own = RevokeUserTokensRequest { organization_id: "acme".to_owned(), ..leaver("bob") };
    let bob = |scopes: &[&str]| {
        let mut request = ordinary();
        request.user_id = "bob".to_owned();
        request.organization_id = "acme".to_owned();
        request.scopes = crate::support::client::texts(scopes);
        request
    };
    let made = created(&mut root, bob(&["a:b"])).await;
    let mighty = created(&mut root, bob(&["tokend:read", "a:b"])).await.token.unwrap().id;

    let outcome = writer.revoke_user_tokens(own.clone()).await;
    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);

    revoked(&mut root, &mighty, "").await;
    assert_eq!(writer.revoke_user_tokens(own).await.unwrap().into_inner().revoked_count, 1);
    let status = refused(writer.revoke_user_tokens(leaver("")).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["user_id"]);
}

#[tokio::test]
async fn all_earlier_tokens_are_revoked_while_others_are_created() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let stopped = Arc::new(AtomicBool::new(false));
    let creators: Vec<_> = (0..4)
        .map(|_| {
            let (mut root, stopped) = (replica.root(), Arc::clone(&stopped));
            tokio::spawn(async move {
                let mut answered = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let made = created(&mut root, ordinary()).await;
                    answered.push((std::time::Instant::now(), made.secret));
                }
                answered
            })
        })
        .collect();
    let database = &replica.installation.database;
    eventually("tokens are made", async || (database.count(ALIVE).await > 20).then_some(())).await;

    let called = std::time::Instant::now();
    let during = left(&mut root, "ada").await;
    stopped.store(true, Ordering::Relaxed);

    assert!(during > 20);
    for creator in creators {
        for (_, secret) in creator.await.unwrap().iter().filter(|(at, _)| *at < called) {
            assert_eq!(verdict(&mut root, secret).await, Verdict::Revoked);
        }
    }
    left(&mut root, "ada").await;
    assert_eq!(database.count(ALIVE).await, 0);
}

#[tokio::test]
async fn a_concurrent_rotation_does_not_survive() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    // Blocks the rotation in the middle: it has the user's lock, and waits for the old token's row.
    let mut psql = database.connect().await;
    let mut held = psql.begin().await.unwrap();
    held.execute("SELECT id FROM tokens WHERE user_id = 'ada' FOR SHARE").await.unwrap();
    let (mut first, mut second) = (root.clone(), root.clone());
    let rotating = tokio::spawn(async move { first.rotate_token(rotation(&id)).await });
    a_statement_waits(database, "transactionid", "SELECT CASE WHEN t.id").await;
    let leaving = tokio::spawn(async move { left(&mut second, "ada").await });
    a_statement_waits(database, "advisory", "SELECT pg_advisory_xact_lock(").await;

    held.rollback().await.unwrap();

    let new = in_time("the rotation", rotating).await.unwrap().unwrap().into_inner();
    assert_eq!(in_time("the revocation", leaving).await.unwrap(), 2);
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Revoked);
    assert_eq!(database.count(ALIVE).await, 0);
}

#[tokio::test]
async fn a_later_rotation_is_refused() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let mut psql = database.connect().await;
    let mut held = psql.begin().await.unwrap();
    held.execute("SELECT id FROM tokens WHERE user_id = 'ada' FOR SHARE").await.unwrap();
    let (mut first, mut second) = (root.clone(), root.clone());
    let leaving = tokio::spawn(async move { left(&mut first, "ada").await });
    a_statement_waits(database, "transactionid", "SELECT count(*) FROM (").await;
    let rotating = tokio::spawn(async move { second.rotate_token(rotation(&id)).await });
    a_statement_waits(database, "advisory", "SELECT pg_advisory_xact_lock_shared(").await;

    held.rollback().await.unwrap();

    assert_eq!(in_time("the revocation", leaving).await.unwrap(), 1);
    let outcome = in_time("the rotation", rotating).await.unwrap();
    refused(outcome, Code::FailedPrecondition, "TOKEN_REVOKED");
    assert_eq!(database.count(ALIVE).await, 0);
}

#[tokio::test]
async fn a_hundred_thousand_tokens_of_one_user_are_revoked_in_one_call() {
    let replica = Replica::large().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let graceful = tokend::api::proto::RotateTokenRequest {
        grace_period: seconds(3600),
        ..rotation(&made.token.unwrap().id)
    };
    let successor = root.rotate_token(graceful).await.unwrap().into_inner();
    copy_token(database, 99_998, "user_id = 'ada' AND rotated_from IS NOT NULL").await;
    assert_eq!(database.count(ALIVE).await, 100_000);
    assert_eq!(verdict(&mut root, &successor.secret).await, Verdict::Valid);

    let started = std::time::Instant::now();
    assert_eq!(left(&mut root, "ada").await, 100_000);
    println!("100,000 tokens revoked in {:?}", started.elapsed());

    assert_eq!(database.count(ALIVE).await, 0);
    for secret in [&made.secret, &successor.secret] {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Revoked);
    }
    let active = ListTokensRequest {
        user_id: "ada".to_owned(),
        states: vec![TokenState::Active.into()],
        ..Default::default()
    };
    assert_eq!(root.list_tokens(active).await.unwrap().into_inner().tokens, []);
    let events = "SELECT count(*) FROM token_events WHERE kind = 'revoked'";
    assert_eq!(database.count(events).await, 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_revocations_leave_connections_for_single_ones() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.database_connections = 16;
    let replica = installation.serve(config).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let alone = created(&mut root, ordinary()).await.token.unwrap().id;
    let users: Vec<_> = (0..12).map(|number| format!("user-{number}")).collect();
    for user_id in &users {
        created(&mut root, CreateTokenRequest { user_id: user_id.clone(), ..ordinary() }).await;
    }
    // None of them can finish.
    let mut psql = database.connect().await;
    let mut held = psql.begin().await.unwrap();
    held.execute("SELECT id FROM tokens WHERE user_id LIKE 'user-%' FOR SHARE").await.unwrap();
    let leaving: Vec<_> = users
        .into_iter()
        .map(|user_id| {
            let mut root = root.clone();
            tokio::spawn(async move { root.revoke_user_tokens(leaver(&user_id)).await })
        })
        .collect();
    a_statement_waits(database, "transactionid", "SELECT count(*) FROM (").await;

    let revocation = in_time("the revocation of one", revoked(&mut root, &alone, "")).await;

    assert!(revocation.token.is_some());
    held.rollback().await.unwrap();
    for leaving in leaving {
        // Some have timed out.
        drop(leaving.await.unwrap());
    }
}
