//! What a listing shows: which tokens, in which order, and which questions it refuses.

use prost_types::Timestamp;
use tokend::grpc::proto::TokenState::{self, Active, Expired, Revoked};
use tokend::grpc::proto::create_token_request::Expiration;
use tokend::grpc::proto::{CreateTokenRequest, ListTokensRequest};
use tonic::Code;

use crate::support::client::{Client, created, ordinary, revoked, second};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

/// Creates an ordinary token with this name; the rest is the request's.
async fn named(client: &mut Client, name: &str, request: CreateTokenRequest) -> String {
    created(client, CreateTokenRequest { name: name.to_owned(), ..request }).await.token.unwrap().id
}

/// Lists one page and returns the names on it, without the callers' own.
async fn names(client: &mut Client, request: ListTokensRequest) -> Vec<String> {
    let page = client.list_tokens(request).await.unwrap().into_inner();
    let ordinary =
        page.tokens.into_iter().filter(|token| !token.scopes.iter().any(|s| s.starts_with("tokend:")));
    ordinary.map(|token| token.name).collect()
}

fn owned_by(organization_id: &str, user_id: &str) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        ..ordinary()
    }
}

fn of(organization_id: &str, user_id: &str) -> ListTokensRequest {
    ListTokensRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_listing_shows_the_newest_first() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for name in ["first", "second", "third"] {
        named(&mut root, name, ordinary()).await;
    }

    for order_by in ["", "create_time desc"] {
        let request = ListTokensRequest { order_by: order_by.to_owned(), ..Default::default() };
        assert_eq!(names(&mut root, request).await, ["third", "second", "first"]);
    }
}

#[tokio::test]
async fn a_listing_by_expire_time_shows_the_soonest_first_and_never_last() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let at = |seconds, nanos| CreateTokenRequest {
        expiration: Some(Expiration::ExpireTime(Timestamp { seconds, nanos })),
        ..ordinary()
    };
    named(&mut root, "never", ordinary()).await;
    named(&mut root, "later", at(32_503_680_001, 0)).await;
    named(&mut root, "soon", at(32_503_680_000, 0)).await;
    named(&mut root, "a little later", at(32_503_680_000, 1_000)).await;
    named(&mut root, "never either", ordinary()).await;

    let by_expire_time = ListTokensRequest { order_by: "expire_time".to_owned(), ..Default::default() };
    let names = names(&mut root, by_expire_time).await;

    assert_eq!(names, ["soon", "a little later", "later", "never", "never either"]);
}

#[tokio::test]
async fn filters_of_organization_and_user_apply_together() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (organization, user) in [("acme", "ada"), ("acme", "bob"), ("other", "ada")] {
        named(&mut root, &format!("{organization}/{user}"), owned_by(organization, user)).await;
    }

    assert_eq!(names(&mut root, of("", "")).await, ["other/ada", "acme/bob", "acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "")).await, ["acme/bob", "acme/ada"]);
    assert_eq!(names(&mut root, of("", "ada")).await, ["other/ada", "acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "ada")).await, ["acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "Ada")).await, [""; 0]);
    assert_eq!(names(&mut root, of("nobody", "")).await, [""; 0]);
    for (organization, user, expected) in [
        ("acme", "", &["acme/ada", "acme/bob"][..]),
        ("", "ada", &["acme/ada", "other/ada"]),
        ("acme", "bob", &["acme/bob"]),
    ] {
        let request = ListTokensRequest { order_by: "expire_time".to_owned(), ..of(organization, user) };
        assert_eq!(names(&mut root, request).await, expected, "by expire_time");
    }
}

#[tokio::test]
async fn states_are_told_and_filtered_by_the_moment_of_the_answer() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    named(&mut root, "active", ordinary()).await;
    let end =
        CreateTokenRequest { expiration: Some(Expiration::ExpireTime(second(32_503_680_000))), ..ordinary() };
    named(&mut root, "future", end).await;
    named(&mut root, "expired", owned_by("", "expired")).await;
    let id = named(&mut root, "revoked", ordinary()).await;
    revoked(&mut root, &id, "").await;
    let id = named(&mut root, "both", owned_by("", "expired")).await;
    revoked(&mut root, &id, "").await;
    let expire =
        "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'expired'";
    assert_eq!(replica.installation.database.execute(expire).await, 2);

    for (states, expected) in [
        (&[][..], &["active", "both", "expired", "future", "revoked"][..]),
        (&[Active], &["active", "future"]),
        (&[Expired], &["expired"]),
        (&[Revoked], &["both", "revoked"]),
        (&[Revoked, Expired, Revoked], &["both", "expired", "revoked"]),
        (&[Active, Expired, Revoked], &["active", "both", "expired", "future", "revoked"]),
    ] {
        for order_by in ["create_time desc", "expire_time"] {
            let request = ListTokensRequest {
                states: states.iter().map(|&state| state.into()).collect(),
                order_by: order_by.to_owned(),
                ..Default::default()
            };
            let mut names = names(&mut root, request).await;
            names.sort();
            assert_eq!(names, expected, "{states:?} by {order_by}");
        }
    }
    let all = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    let state = |name| all.iter().find(|token| token.name == name).unwrap().state();
    assert_eq!(
        ["active", "future", "expired", "revoked", "both"].map(state),
        [Active, Active, Expired, Revoked, Revoked]
    );
}

#[tokio::test]
async fn a_question_that_cannot_be_meant_is_refused_by_its_field() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let blank = ListTokensRequest::default;

    for (request, expected) in [
        (ListTokensRequest { page_size: -1, ..blank() }, "page_size"),
        (ListTokensRequest { page_size: i32::MIN, ..blank() }, "page_size"),
        (ListTokensRequest { order_by: "name".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { order_by: "create_time".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { order_by: "expire_time desc".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { states: vec![TokenState::Active.into(), 0], ..blank() }, "states[1]"),
        (ListTokensRequest { states: vec![99], ..blank() }, "states[0]"),
        (of(&"o".repeat(201), ""), "organization_id"),
        (of("", &"u".repeat(201)), "user_id"),
        (of("", "\0"), "user_id"),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.list_tokens(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [expected], "{shown}");
    }
}

#[tokio::test]
async fn everything_wrong_with_a_question_is_told_at_once() {
    let replica = Replica::start().await;
    let request =
        ListTokensRequest { states: vec![0], order_by: "?".to_owned(), page_size: -1, ..of("\n", "\n") };

    let status = refused(replica.root().list_tokens(request).await, Code::InvalidArgument, "INVALID_FIELD");

    assert_eq!(fields(&status), ["organization_id", "user_id", "states[0]", "order_by", "page_size"]);
}
