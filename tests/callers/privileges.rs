//! No caller can create or end a token with more rights than its own.

use prost_types::{Duration, Timestamp};
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, UpdateTokenRequest, Verdict, update_token_request};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::client::{
    Client, created, created_with, mask, ordinary, renaming, revocation, second, texts, verified,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

const END: i64 = 32_503_680_000;

fn with_scopes(scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { scopes: texts(scopes), ..ordinary() }
}

fn until(expiration: Expiration, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { expiration: Some(expiration), ..with_scopes(scopes) }
}

/// Returns a writer with an expiration.
async fn mortal_writer(replica: &Replica) -> Client {
    let request = until(Expiration::ExpireTime(second(END)), &["tokend:write", "tokend:read"]);
    replica.client(&created(&mut replica.root(), request).await.secret)
}

#[tokio::test]
async fn a_caller_grants_no_reserved_scope_that_it_lacks() {
    let replica = Replica::shared().await;
    let mut writer = replica.caller("", &["tokend:write", "tokend:verify"]).await;

    for scope in ["tokend:read", "tokend:verify:any", "tokend:root"] {
        let outcome = writer.create_token(with_scopes(&["a:b", "tokend:write", scope])).await;
        let status = refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
        assert_eq!(status.get_details_error_info().unwrap().metadata["scope"], scope);
    }
    created(&mut writer, with_scopes(&["tokend:write", "tokend:verify", "anything:*"])).await;
}

#[tokio::test]
async fn a_root_caller_grants_everything() {
    let replica = Replica::shared().await;
    let all = ["tokend:verify", "tokend:verify:any", "tokend:read", "tokend:write", "tokend:root"];

    let token = created_with(&mut replica.root(), "acme", &all).await.token.unwrap();

    assert_eq!(token.scopes, all);
}

#[tokio::test]
async fn a_privileged_token_does_not_outlive_its_creator() {
    let replica = Replica::shared().await;
    let mut writer = mortal_writer(replica).await;
    let a_moment_later = Timestamp { seconds: END, nanos: 1_000 };

    for expiration in [
        Expiration::NoExpiration(true),
        Expiration::ExpireTime(a_moment_later),
        Expiration::Ttl(Duration { seconds: END, nanos: 0 }),
    ] {
        let outcome = writer.create_token(until(expiration, &["tokend:read"])).await;
        refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
    created(&mut writer, until(Expiration::ExpireTime(second(END)), &["tokend:read"])).await;
    created(&mut writer, until(Expiration::Ttl(Duration { seconds: 1, nanos: 0 }), &["tokend:read"])).await;
}

#[tokio::test]
async fn an_ordinary_token_may_outlive_its_creator() {
    let replica = Replica::shared().await;
    let mut writer = mortal_writer(replica).await;

    let token = created(&mut writer, until(Expiration::NoExpiration(true), &["repo:*"])).await.token.unwrap();

    assert_eq!(token.expire_time, None);
}

#[tokio::test]
async fn a_caller_revokes_no_token_with_a_reserved_scope_that_it_lacks() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut writer = replica.caller("", &["tokend:write"]).await;
    let reader = created_with(&mut root, "", &["tokend:write", "tokend:read"]).await;
    let id = reader.token.unwrap().id;

    let outcome = writer.revoke_token(revocation(&id, "")).await;

    let status = refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(status.get_details_error_info().unwrap().metadata["scope"], "tokend:read");
    assert_eq!(verified(&mut root, &reader.secret, &[]).await.verdict(), Verdict::Valid);
    let root_id = &replica.installation.root_secret[5..27];
    let outcome = writer.revoke_token(revocation(root_id, "")).await;
    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
}

#[tokio::test]
async fn a_privileged_token_of_another_organization_is_not_found() {
    let replica = Replica::shared().await;
    let mut writer = replica.caller("acme", &["tokend:write"]).await;

    let outcome = writer.revoke_token(revocation(&replica.installation.root_secret[5..27], "")).await;

    refused(outcome, Code::NotFound, "TOKEN_NOT_FOUND");
}

#[tokio::test]
async fn a_caller_revokes_its_equals_and_itself() {
    let replica = Replica::shared().await;
    let made = created_with(&mut replica.root(), "acme", &["tokend:write"]).await;
    let mut writer = replica.client(&made.secret);
    let equal = created(&mut writer, with_scopes(&["tokend:write"])).await.token.unwrap();

    writer.revoke_token(revocation(&equal.id, "")).await.unwrap();
    writer.revoke_token(revocation(&made.token.unwrap().id, "")).await.unwrap();

    let outcome = writer.create_token(ordinary()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn the_caller_is_checked_before_the_request() {
    let replica = Replica::shared().await;
    let mut reader = replica.caller("acme", &["tokend:read"]).await;

    let outcome = reader.create_token(CreateTokenRequest::default()).await;

    refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_caller_issues_no_token_with_more_than_it_has() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut writer = mortal_writer(replica).await;
    let plain = created(&mut root, with_scopes(&["a:b"])).await.token.unwrap().id;
    let eternal = created(&mut root, with_scopes(&["tokend:read"])).await.token.unwrap().id;
    let verifier = created(&mut root, with_scopes(&["tokend:verify"])).await.token.unwrap().id;
    let scopes = |id: &str, scopes: &[&str]| UpdateTokenRequest {
        token_id: id.to_owned(),
        scopes: texts(scopes),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    };
    let forever = UpdateTokenRequest {
        token_id: eternal.clone(),
        expiration: Some(update_token_request::Expiration::ExpireTime(second(END + 1))),
        update_mask: mask(&["expiration"]),
        ..Default::default()
    };

    for request in [
        renaming(&verifier),
        scopes(&plain, &["tokend:verify"]),
        // Scopes of the caller itself, but for longer than it has them.
        scopes(&plain, &["a:b", "tokend:read"]),
        scopes(&eternal, &["tokend:read", "tokend:write"]),
        forever,
    ] {
        let shown = format!("{request:?}");
        let outcome = writer.update_token(request).await;
        let status = refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
        assert!(!status.message().is_empty(), "{shown}");
    }
    writer.update_token(renaming(&eternal)).await.unwrap();
    writer.update_token(scopes(&plain, &["c:*"])).await.unwrap();
    writer.update_token(scopes(&eternal, &[])).await.unwrap();
}
