//! A token that rotates itself: this needs no scope, gains nothing, and cannot lock it out.

use tokend::api::proto::rotate_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, RotateTokenRequest, Token, Verdict};
use tonic::Code;

use super::{got, metadata, seconds, verdict};
use crate::support::client::{
    created, created_with, nanos, new_request_id, ordinary, rotated, rotation, second, texts,
};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

fn by_itself(id: &str) -> RotateTokenRequest {
    RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(id) }
}

#[tokio::test]
async fn an_ordinary_token_rotates_itself_into_an_equal_successor() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let end = tokend::api::proto::create_token_request::Expiration::ExpireTime(second(32_503_680_000));
    let request = CreateTokenRequest {
        expiration: Some(end),
        scopes: texts(&["repo:read"]),
        allowed_cidrs: texts(&["127.0.0.0/8"]),
        ..ordinary()
    };
    let old = created(&mut root, request).await;
    let before = old.token.unwrap();
    let mut itself = replica.client(&old.secret);

    let new = rotated(&mut itself, by_itself(&before.id)).await;

    let token = new.token.unwrap();
    let expected = Token {
        id: token.id.clone(),
        create_time: token.create_time,
        created_by: before.id.clone(),
        rotated_from: before.id.clone(),
        family_id: before.id.clone(),
        ..before.clone()
    };
    assert_eq!(token, expected);
    let after = got(&mut root, &before.id).await;
    assert!(nanos(after.expire_time.as_ref()) < nanos(before.expire_time.as_ref()));
    let next = rotated(&mut replica.client(&new.secret), by_itself(&token.id)).await.token.unwrap();
    assert_eq!((next.expire_time, next.scopes), (before.expire_time, before.scopes));
}

#[tokio::test]
async fn a_self_rotation_chooses_no_expiration_and_leaves_time_for_a_retry() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    for scopes in [&["repo:read"][..], &["tokend:write"], &["tokend:root"]] {
        let old = created_with(&mut root, "", scopes).await;
        let id = old.token.unwrap().id;
        let mut itself = replica.client(&old.secret);

        for (request, expected) in [
            (rotation(&id), &["grace_period", "request_id"][..]),
            (RotateTokenRequest { request_id: String::new(), ..by_itself(&id) }, &["request_id"]),
            (RotateTokenRequest { grace_period: seconds(59), ..by_itself(&id) }, &["grace_period"]),
            (
                RotateTokenRequest { expiration: Some(Expiration::NoExpiration(true)), ..by_itself(&id) },
                &["expiration"],
            ),
        ] {
            let status = refused(itself.rotate_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
            assert_eq!(fields(&status), expected, "{scopes:?}");
        }
        rotated(&mut itself, by_itself(&id)).await;
    }
}

#[tokio::test]
async fn an_ordinary_token_rotates_no_other() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let old = created(&mut root, ordinary()).await;
    let other = created(&mut root, ordinary()).await.token.unwrap().id;
    let mut itself = replica.client(&old.secret);

    for request in [by_itself(&other), rotation("?")] {
        refused(itself.rotate_token(request).await, Code::PermissionDenied, "SCOPE_MISSING");
    }
}

#[tokio::test]
async fn a_retry_with_the_old_secret_gets_the_successor_again() {
    let replica = Replica::shared().await;
    let old = created(&mut replica.root(), ordinary()).await;
    let id = old.token.unwrap().id;
    let mut itself = replica.client(&old.secret);
    let request = by_itself(&id);
    let first = rotated(&mut itself, request.clone()).await;

    let again = rotated(&mut itself, request).await;

    assert_eq!((again.token, again.secret), (first.token.clone(), first.secret));
    let status =
        refused(itself.rotate_token(by_itself(&id)).await, Code::FailedPrecondition, "TOKEN_ROTATED");
    assert_eq!(metadata(&status, "successor"), first.token.unwrap().id);
}

#[tokio::test]
async fn one_of_many_concurrent_self_rotations_wins() {
    let replica = Replica::shared().await;
    let old = created(&mut replica.root(), ordinary()).await;
    let id = old.token.unwrap().id;

    let all: Vec<_> = (0..16)
        .map(|_| {
            let (mut itself, request) = (replica.client(&old.secret), by_itself(&id));
            tokio::spawn(async move { itself.rotate_token(request).await })
        })
        .collect();
    let mut won = Vec::new();
    for one in all {
        match one.await.unwrap() {
            Ok(new) => won.push(new.into_inner().secret),
            lost => drop(refused(lost, Code::FailedPrecondition, "TOKEN_ROTATED")),
        }
    }

    assert_eq!(won.len(), 1);
    assert_eq!(verdict(&mut replica.root(), &won[0]).await, Verdict::Valid);
}
