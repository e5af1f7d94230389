//! Requests with an id have one result: every retry gets the same token and the same secret,
//! although tokend stores neither the secret nor the id.

use std::collections::HashSet;

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, CreateTokenResponse, RotateTokenRequest, TokenState, Verdict};
use tonic::Code;

use super::{metadata, seconds, verdict};
use crate::support::client::{
    created, created_with, new_request_id, ordinary, renaming, revoked, rotated, rotation, texts,
};
use crate::support::replica::{Installation, Replica, keyring, new_key};
use crate::support::status::refused;

const TOKENS_OF_ADA: &str = "SELECT count(*) FROM tokens WHERE user_id = 'ada'";

fn repeatable() -> CreateTokenRequest {
    CreateTokenRequest { request_id: new_request_id(), ..ordinary() }
}

#[tokio::test]
async fn a_retry_returns_the_same_token_and_secret() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let labels: Vec<_> = (0..32).map(|index| (format!("key{index}"), index.to_string())).collect();
    let request = CreateTokenRequest {
        labels: labels.into_iter().collect(),
        scopes: texts(&["a", "b:*"]),
        allowed_cidrs: texts(&["127.0.0.0/8", "::1/128"]),
        expiration: Some(Expiration::Ttl(seconds(3600).unwrap())),
        ..repeatable()
    };
    let first = created(&mut root, request.clone()).await;

    for _ in 0..3 {
        let again = created(&mut root, request.clone()).await;
        assert_eq!((again.secret, again.token), (first.secret.clone(), first.token.clone()));
    }
    let shouted = CreateTokenRequest { request_id: request.request_id.to_uppercase(), ..request.clone() };
    assert_eq!(created(&mut root, shouted).await.secret, first.secret, "the same UUID");
    let turned = CreateTokenRequest {
        scopes: texts(&["b:*", "a", "b:*"]),
        allowed_cidrs: texts(&["::1/128", "127.0.0.0/8"]),
        ..request
    };
    assert_eq!(created(&mut root, turned).await.secret, first.secret, "sets have no order");
    assert_eq!(replica.installation.database.count(TOKENS_OF_ADA).await, 1);
}

#[tokio::test]
async fn without_a_request_id_a_repeated_call_creates_a_second_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();

    let (first, second) = (created(&mut root, ordinary()).await, created(&mut root, ordinary()).await);

    assert_ne!(first.secret, second.secret);
    assert_eq!(replica.installation.database.count(TOKENS_OF_ADA).await, 2);
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM token_requests").await, 0);
}

#[tokio::test]
async fn a_hundred_concurrent_retries_on_two_replicas_create_one_token() {
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    let request = repeatable();

    let all: Vec<_> = (0..100)
        .map(|number| {
            let mut root = if number % 2 == 0 { replica.root() } else { other.root() };
            let request = request.clone();
            tokio::spawn(async move { root.create_token(request).await.unwrap().into_inner() })
        })
        .collect();
    let mut secrets = HashSet::new();
    for one in all {
        let CreateTokenResponse { secret, token } = one.await.unwrap();
        assert!(token.is_some());
        secrets.insert(secret);
    }

    assert_eq!(secrets.len(), 1);
    assert_eq!(replica.installation.database.count(TOKENS_OF_ADA).await, 1);
    assert_eq!(verdict(&mut replica.root(), secrets.iter().next().unwrap()).await, Verdict::Valid);
    let events = "SELECT count(*) FROM token_events WHERE user_id = 'ada'";
    assert_eq!(replica.installation.database.count(events).await, 1);
}

#[tokio::test]
async fn a_hundred_retries_of_a_rotation_create_one_successor() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let request = RotateTokenRequest { request_id: new_request_id(), ..rotation(&id) };

    let all: Vec<_> = (0..100)
        .map(|_| {
            let (mut root, request) = (root.clone(), request.clone());
            tokio::spawn(async move { rotated(&mut root, request).await.secret })
        })
        .collect();
    let mut secrets = HashSet::new();
    for one in all {
        secrets.insert(one.await.unwrap());
    }

    assert_eq!(secrets.len(), 1);
    assert_eq!(replica.installation.database.count(TOKENS_OF_ADA).await, 2);
}

#[tokio::test]
async fn the_same_id_with_another_request_is_refused() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let request = repeatable();
    let id = created(&mut root, request.clone()).await.token.unwrap().id;
    let same = || request.clone();

    for other in [
        CreateTokenRequest { user_id: "bob".to_owned(), ..same() },
        CreateTokenRequest { name: "phone".to_owned(), ..same() },
        CreateTokenRequest { organization_id: "acme".to_owned(), ..same() },
        CreateTokenRequest { scopes: texts(&["a"]), ..same() },
        CreateTokenRequest { labels: [("a".to_owned(), String::new())].into(), ..same() },
        CreateTokenRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..same() },
        CreateTokenRequest { expiration: Some(Expiration::Ttl(seconds(60).unwrap())), ..same() },
    ] {
        let shown = format!("{other:?}");
        let status = refused(root.create_token(other).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
        assert!(!format!("{status:?}").contains(&request.request_id), "{shown}");
    }
    let rotate = RotateTokenRequest { request_id: request.request_id.clone(), ..rotation(&id) };
    refused(root.rotate_token(rotate).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    let named = CreateTokenRequest { organization_id: "default".to_owned(), ..same() };
    assert_eq!(created(&mut root, named).await.token.unwrap().id, id, "the same organization, named");
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM tokens").await, 2);
}

#[tokio::test]
async fn the_same_id_of_another_caller_is_another_request() {
    let replica = Replica::shared().await;
    let (mut root, mut writer) = (replica.root(), replica.caller("", &["tokend:write"]).await);
    let request = repeatable();

    let (first, second) = (created(&mut root, request.clone()).await, created(&mut writer, request).await);

    assert_ne!(first.secret[27..], second.secret[27..]);
    assert_ne!(first.token.unwrap().id, second.token.unwrap().id);
}

#[tokio::test]
async fn a_refused_request_may_be_corrected_with_the_same_id() {
    let replica = Replica::shared().await;
    let mut writer = replica.caller("", &["tokend:write"]).await;
    let request = repeatable();
    let forbidden = CreateTokenRequest { scopes: texts(&["tokend:read"]), ..request.clone() };
    refused(writer.create_token(forbidden).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");

    let made = created(&mut writer, request.clone()).await;

    assert_eq!(created(&mut writer, request).await.secret, made.secret);
}

#[tokio::test]
async fn a_retry_shows_the_current_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let request =
        CreateTokenRequest { expiration: Some(Expiration::Ttl(seconds(60).unwrap())), ..repeatable() };
    let first = created(&mut root, request.clone()).await;
    let id = first.token.unwrap().id;
    root.update_token(renaming(&id)).await.unwrap();
    revoked(&mut root, &id, "lost").await;
    let expire = "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'ada'";
    replica.installation.database.execute(expire).await;

    let again = created(&mut root, request).await;

    assert_eq!(again.secret, first.secret);
    let token = again.token.unwrap();
    assert_eq!((token.state(), &*token.name), (TokenState::Revoked, "renamed"));
}

#[tokio::test]
async fn a_caller_that_may_no_longer_create_gets_nothing_on_a_retry() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut writer = replica.caller("", &["tokend:write", "tokend:read"]).await;
    let request =
        CreateTokenRequest { user_id: "bob".to_owned(), scopes: texts(&["tokend:read"]), ..repeatable() };
    created(&mut writer, request.clone()).await;

    database.execute("UPDATE tokens SET scopes = '{tokend:write}' WHERE user_id = 'ada'").await;
    refused(writer.create_token(request.clone()).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    database.execute("UPDATE tokens SET revoke_time = now(), revoke_reason = '' WHERE user_id = 'ada'").await;
    refused(writer.create_token(request).await, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn after_a_day_the_secret_cannot_be_derived_and_the_id_is_free() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let request = repeatable();
    let first = created(&mut root, request.clone()).await;

    database.execute("UPDATE token_requests SET create_time = now() - interval '23 hours 59 minutes'").await;
    assert_eq!(created(&mut root, request.clone()).await.secret, first.secret);
    database.execute("UPDATE token_requests SET create_time = now() - interval '24 hours'").await;
    let other = CreateTokenRequest { name: "other".to_owned(), ..request.clone() };
    let second = created(&mut root, other.clone()).await;

    assert_ne!(second.secret[27..70], first.secret[27..70]);
    assert_eq!(created(&mut root, other).await.secret, second.secret, "its own retries");
    refused(root.create_token(request).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    assert_eq!(database.count("SELECT count(*) FROM token_requests").await, 1);
}

#[tokio::test]
async fn requests_of_yesterday_are_deleted() {
    let replica = Replica::start().await;
    let database = replica.installation.database.clone();
    created(&mut replica.root(), repeatable()).await;
    created(&mut replica.root(), repeatable()).await;
    let oldest = "UPDATE token_requests SET create_time = now() - interval '24 hours'
        WHERE request_mac = (SELECT request_mac FROM token_requests ORDER BY request_mac LIMIT 1)";
    assert_eq!(database.execute(oldest).await, 1);

    // The job runs when a replica starts.
    let _other = replica.installation.serve(replica.installation.config()).await;

    crate::support::eventually("the old one is deleted", async || {
        (database.count("SELECT count(*) FROM token_requests").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_may_rotate_between_retries_and_a_lost_key_is_an_error_with_the_token() {
    let installation = Installation::new().await;
    let [old, new] = [installation.key.clone(), new_key()];
    let with = |keys: &[&str]| {
        let mut config = installation.config();
        config.keyring = keyring(keys);
        config
    };
    let request = repeatable();
    let first = created(&mut installation.serve(with(&[&old])).await.root(), request.clone()).await;
    let id = first.token.unwrap().id;

    let rotated = installation.serve(with(&[&new, &old])).await;
    assert_eq!(created(&mut rotated.root(), request.clone()).await.secret, first.secret);
    let lost = installation.serve(with(&[&new])).await;
    for request in [request.clone(), CreateTokenRequest { name: "other".to_owned(), ..request }] {
        let outcome = lost.root().create_token(request).await;
        let status = refused(outcome, Code::AlreadyExists, "REQUEST_NOT_REPEATABLE");
        assert_eq!(metadata(&status, "token_id"), id);
    }
    assert_eq!(installation.database.count(TOKENS_OF_ADA).await, 1);
}

#[tokio::test]
async fn a_retry_whose_token_was_deleted_gets_no_other_token() {
    let replica = Replica::start().await;
    let request = repeatable();
    let id = created(&mut replica.root(), request.clone()).await.token.unwrap().id;
    replica.installation.database.execute("DELETE FROM tokens WHERE user_id = 'ada'").await;

    let outcome = replica.root().create_token(request).await;

    let status = refused(outcome, Code::AlreadyExists, "REQUEST_NOT_REPEATABLE");
    assert_eq!(metadata(&status, "token_id"), id);
}

#[tokio::test]
async fn neither_the_secret_nor_the_request_id_is_stored() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let request = repeatable();
    let made = created(&mut root, request.clone()).await;
    let (id, compact) = (request.request_id.clone(), request.request_id.replace('-', ""));
    created_with(&mut root, "", &[]).await;

    for table in ["tokens", "token_requests", "token_events", "token_changes", "token_uses"] {
        let found = format!(
            "SELECT count(*) FROM {table} AS row WHERE row::text LIKE '%{id}%' OR row::text LIKE '%{compact}%'
             OR row::text LIKE '%{}%'",
            &made.secret[27..70]
        );
        assert_eq!(database.count(found).await, 0, "{table}");
    }
}
