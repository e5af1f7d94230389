//! Updating a token: only the fields in the mask, effective at once, and never a revoked token.

use prost_types::Duration;
use tokend::api::proto::update_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, Token, UpdateTokenRequest, Verdict};
use tonic::Code;

use super::get::got;
use crate::support::client::{
    Client, created, created_with, mask, ordinary, renaming, revoked, second, texts, unknown_id, verified,
};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const YEAR_3000: i64 = 32_503_680_000;

async fn updated(client: &mut Client, request: UpdateTokenRequest) -> Token {
    client.update_token(request).await.unwrap().into_inner().token.unwrap()
}

fn change(id: &str, paths: &[&str]) -> UpdateTokenRequest {
    UpdateTokenRequest { token_id: id.to_owned(), update_mask: mask(paths), ..Default::default() }
}

fn full() -> CreateTokenRequest {
    CreateTokenRequest {
        scopes: texts(&["repo:read"]),
        labels: [("team".to_owned(), "tools".to_owned())].into(),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..ordinary()
    }
}

#[tokio::test]
async fn only_the_fields_of_the_mask_are_changed() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let before = created(&mut root, full()).await.token.unwrap();
    let id = &*before.id;
    let labels = [("team".to_owned(), "web".to_owned()), ("x".to_owned(), String::new())];

    for (request, after) in [
        (
            UpdateTokenRequest { name: "new".to_owned(), ..change(id, &["name"]) },
            Token { name: "new".to_owned(), ..before.clone() },
        ),
        (
            UpdateTokenRequest { labels: labels.clone().into(), ..change(id, &["labels"]) },
            Token { labels: labels.into(), name: "new".to_owned(), ..before.clone() },
        ),
        (
            UpdateTokenRequest {
                name: before.name.clone(),
                scopes: texts(&["a", "b:*", "a"]),
                ..change(id, &["labels", "scopes", "name", "name"])
            },
            Token { scopes: texts(&["a", "b:*"]), labels: [].into(), ..before.clone() },
        ),
        (
            UpdateTokenRequest {
                expiration: Some(Expiration::ExpireTime(second(YEAR_3000))),
                ..change(id, &["scopes", "allowed_cidrs", "expiration"])
            },
            Token {
                expire_time: Some(second(YEAR_3000)),
                scopes: vec![],
                allowed_cidrs: vec![],
                labels: [].into(),
                ..before.clone()
            },
        ),
        (
            UpdateTokenRequest {
                expiration: Some(Expiration::NoExpiration(true)),
                allowed_cidrs: texts(&["::ffff:10.0.0.0/104"]),
                ..change(id, &["expiration", "allowed_cidrs"])
            },
            Token { scopes: vec![], labels: [].into(), ..before.clone() },
        ),
    ] {
        assert_eq!(updated(&mut root, request).await, after);
        assert_eq!(got(&mut root, id).await, after);
    }
}

#[tokio::test]
async fn a_field_missing_from_the_mask_is_refused_and_not_ignored() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let before = created(&mut root, full()).await.token.unwrap();
    let everything = UpdateTokenRequest {
        name: "new".to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        scopes: texts(&["a"]),
        expiration: Some(Expiration::NoExpiration(true)),
        allowed_cidrs: texts(&["10.0.0.0/9"]),
        ..change(&before.id, &[])
    };

    for (paths, expected) in [
        (&["name"][..], &["labels", "scopes", "expiration", "allowed_cidrs"][..]),
        (&["expiration", "scopes"], &["name", "labels", "allowed_cidrs"]),
    ] {
        let request = UpdateTokenRequest { update_mask: mask(paths), ..everything.clone() };
        let status = refused(root.update_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), expected);
    }
    assert_eq!(got(&mut root, &before.id).await, before);
}

#[tokio::test]
async fn a_mask_must_name_known_paths_and_fields_have_their_limits() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let end =
        |expiration| UpdateTokenRequest { expiration: Some(expiration), ..change(&id, &["expiration"]) };

    for (request, expected) in [
        (UpdateTokenRequest { update_mask: None, ..change(&id, &[]) }, &["update_mask"][..]),
        (change(&id, &[]), &["update_mask"]),
        (change(&id, &["labels", "*"]), &["update_mask.paths[1]"]),
        (change(&id, &["user_id"]), &["update_mask.paths[0]"]),
        (change(&id, &["expire_time", "labels.a"]), &["update_mask.paths[0]", "update_mask.paths[1]"]),
        (change(&id, &["name"]), &["name"]),
        (change(&id, &["expiration"]), &["expiration"]),
        (change("", &["labels"]), &["token_id"]),
        (UpdateTokenRequest { scopes: texts(&["?"]), ..change(&id, &["scopes"]) }, &["scopes[0]"]),
        (
            UpdateTokenRequest { allowed_cidrs: texts(&["10.0.0.1/8"]), ..change(&id, &["allowed_cidrs"]) },
            &["allowed_cidrs[0]"],
        ),
        (end(Expiration::ExpireTime(second(0))), &["expire_time"]),
        (end(Expiration::Ttl(Duration { seconds: 0, nanos: 0 })), &["ttl"]),
        (end(Expiration::NoExpiration(false)), &["no_expiration"]),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.update_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), expected, "{shown}");
    }
    let unknown = renaming(&unknown_id().to_string());
    refused(root.update_token(unknown).await, Code::NotFound, "TOKEN_NOT_FOUND");
}

#[tokio::test]
async fn a_change_of_scopes_networks_or_expiration_holds_here_at_once_and_soon_elsewhere() {
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    let (mut root, mut elsewhere) = (replica.root(), other.root());
    let made = created_with(&mut root, "", &["repo:read"]).await;
    let id = made.token.unwrap().id;
    let required = ["repo:read"];
    assert_eq!(verified(&mut root, &made.secret, &required).await.verdict(), Verdict::Valid);
    assert_eq!(verified(&mut elsewhere, &made.secret, &required).await.verdict(), Verdict::Valid);

    for (request, verdict) in [
        (change(&id, &["scopes"]), Verdict::MissingScope),
        (UpdateTokenRequest { scopes: texts(&["repo:*"]), ..change(&id, &["scopes"]) }, Verdict::Valid),
        (
            UpdateTokenRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..change(&id, &["allowed_cidrs"]) },
            Verdict::IpNotAllowed,
        ),
        (change(&id, &["allowed_cidrs"]), Verdict::Valid),
        (
            UpdateTokenRequest {
                expiration: Some(Expiration::Ttl(Duration { seconds: 0, nanos: 1_000 })),
                ..change(&id, &["expiration"])
            },
            Verdict::Expired,
        ),
    ] {
        updated(&mut root, request).await;

        assert_eq!(verified(&mut root, &made.secret, &required).await.verdict(), verdict);
        eventually("the other replica knows", async || {
            (verified(&mut elsewhere, &made.secret, &required).await.verdict() == verdict).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_revoked_token_cannot_be_changed_and_an_expired_one_not_revived() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let revoked_id = created(&mut root, ordinary()).await.token.unwrap().id;
    let expired_id = created(&mut root, ordinary()).await.token.unwrap().id;
    let expire = "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'ada'";
    replica.installation.database.execute(expire).await;
    let before = revoked(&mut root, &revoked_id, "").await.token.unwrap();
    let revive = |id: &str| UpdateTokenRequest {
        expiration: Some(Expiration::NoExpiration(true)),
        ..change(id, &["expiration"])
    };

    for request in [renaming(&revoked_id), revive(&revoked_id)] {
        refused(root.update_token(request).await, Code::FailedPrecondition, "TOKEN_REVOKED");
    }
    assert_eq!(got(&mut root, &revoked_id).await, before);
    refused(root.update_token(revive(&expired_id)).await, Code::FailedPrecondition, "TOKEN_EXPIRED");
    assert_eq!(updated(&mut root, renaming(&expired_id)).await.name, "renamed");
}

#[tokio::test]
async fn a_change_is_logged() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;

    updated(&mut root, renaming(&id)).await;
    root.update_token(change(&id, &["name"])).await.unwrap_err();

    let events = "SELECT count(*) FROM token_events WHERE kind = 'updated' AND user_id = 'ada'";
    assert_eq!(replica.installation.database.count(events).await, 1);
}
