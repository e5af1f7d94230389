//! Who is behind an event of the audit log, and how that is known.

use tokend::api::proto::{Attribution, CreateTokenRequest, OwnerKind};
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::{Code, Request};

use super::events::{events, of_token, on_behalf};
use crate::support::client::{Client, created, leaver, ordinary};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

/// Returns who was behind the newest event of a token.
async fn behind(root: &mut Client, id: &str) -> (String, Attribution) {
    let newest = events(root, of_token(id)).await.remove(0);
    (newest.acting_user.clone(), newest.attribution())
}

#[tokio::test]
async fn a_person_is_proven_by_an_own_credential_and_a_service_is_nobody() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let writer = |kind: OwnerKind| CreateTokenRequest {
        user_id: "grace".to_owned(),
        scopes: vec!["tokend:write".to_owned()],
        owner_kind: kind.into(),
        ..ordinary()
    };
    let person = created(&mut root, writer(OwnerKind::User)).await.secret;
    let service = created(&mut root, writer(OwnerKind::Service)).await.secret;
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let proven = |user: &str| (user.to_owned(), Attribution::Proven);

    let renaming = crate::support::client::renaming(&id);
    replica.client(&person).update_token(renaming.clone()).await.unwrap();
    assert_eq!(behind(&mut root, &id).await, proven("grace"));
    replica.client(&service).update_token(renaming.clone()).await.unwrap();
    assert_eq!(behind(&mut root, &id).await, (String::new(), Attribution::Unspecified));
    // Who shows a credential and names another person proves nothing of that person, nor of itself.
    for secret in [&person, &service] {
        replica.client(secret).update_token(on_behalf("ada", renaming.clone())).await.unwrap();
        assert_eq!(behind(&mut root, &id).await, ("ada".to_owned(), Attribution::Claimed));
    }
    replica.client(&person).revoke_user_tokens(leaver("ada")).await.unwrap();
    assert_eq!(behind(&mut root, &id).await, proven("grace"));
    let bootstrap = replica.installation.root_secret[5..27].to_owned();
    assert_eq!(behind(&mut root, &bootstrap).await, (String::new(), Attribution::Unspecified));
}

#[tokio::test]
async fn the_acting_user_has_a_limited_length() {
    let replica = Replica::start().await;

    for bad in ["", &"x".repeat(201)] {
        let outcome = replica.root().create_token(on_behalf(bad, ordinary())).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["tokend-acting-user"]);
    }
}

#[tokio::test]
async fn the_acting_user_may_use_any_script_and_is_sent_once() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let saying = |values: &[&str], binaries: &[&str]| {
        let mut request = Request::new(ordinary());
        for value in values {
            let value = AsciiMetadataValue::try_from(value.as_bytes()).unwrap();
            request.metadata_mut().append("tokend-acting-user", value);
        }
        for value in binaries {
            let value = MetadataValue::from_bytes(value.as_bytes());
            request.metadata_mut().append_bin("tokend-acting-user-bin", value);
        }
        request
    };

    for (values, binaries, user) in [
        (&["zo%C3%AB"][..], &[][..], "zoë"),
        (&["%E6%9D%8E"], &[], "李"),
        (&["50%25 off"], &[], "50% off"),
        (&[], &["zoë"], "zoë"),
        (&[], &["Ωμέγα"], "Ωμέγα"),
    ] {
        let made = root.create_token(saying(values, binaries)).await.unwrap().into_inner();
        let reported = events(&mut root, of_token(&made.token.unwrap().id)).await;
        assert_eq!(reported[0].acting_user, user);
    }
    for (values, binaries, key) in [
        (&["zoë"][..], &[][..], "tokend-acting-user"),
        (&["50%"], &[], "tokend-acting-user"),
        (&["ada", "bob"], &[], "tokend-acting-user"),
        (&["ada", "ada"], &[], "tokend-acting-user"),
        (&["ada"], &["ada"], "tokend-acting-user"),
        (&[], &["ada", "bob"], "tokend-acting-user-bin"),
        (&[], &["a\nb"], "tokend-acting-user-bin"),
    ] {
        let outcome = root.create_token(saying(values, binaries)).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [key], "{values:?} {binaries:?}");
    }
}
