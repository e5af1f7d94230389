//! The limits of every request field: a value at the limit is accepted, one just beyond it is
//! refused, and the refusal names the field.

use std::collections::HashMap;

use tokend::api::proto::{CreateTokenRequest, Grant, RevokeTokenRequest};
use tonic::Code;

use crate::support::client::{created, ordinary, question, revocation, texts};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

fn named(name: &str) -> CreateTokenRequest {
    CreateTokenRequest { name: name.to_owned(), ..ordinary() }
}

fn of_user(user_id: &str) -> CreateTokenRequest {
    CreateTokenRequest { user_id: user_id.to_owned(), ..ordinary() }
}

fn in_organization(organization_id: &str) -> CreateTokenRequest {
    CreateTokenRequest { organization_id: organization_id.to_owned(), ..ordinary() }
}

fn scoped(scopes: Vec<String>) -> CreateTokenRequest {
    CreateTokenRequest { scopes, ..ordinary() }
}

fn labelled(labels: &[(&str, &str)]) -> CreateTokenRequest {
    let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    CreateTokenRequest { labels: labels.collect(), ..ordinary() }
}

fn with_labels(number: usize) -> CreateTokenRequest {
    let labels: HashMap<_, _> = (0..number).map(|index| (format!("key{index}"), String::new())).collect();
    CreateTokenRequest { labels, ..ordinary() }
}

fn scopes(number: usize) -> Vec<String> {
    (0..number).map(|index| format!("scope:{index}")).collect()
}

#[tokio::test]
async fn values_at_a_bound_are_accepted() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let e = |times| "é".repeat(times);

    for request in [
        named("n"),
        named(&e(100)),
        named(" padded "),
        of_user("u"),
        of_user(&e(100)),
        of_user(" "),
        in_organization("o"),
        in_organization(&e(100)),
        scoped(scopes(64)),
        scoped(vec!["s".repeat(100)]),
        scoped(texts(&["0", "a:*", "a.b_c/d-e:f:*", "tokendish:x", "tokend:read"])),
        with_labels(32),
        labelled(&[(&e(31), &e(127)), ("k", ""), (&"k".repeat(63), &"v".repeat(255))]),
    ] {
        let shown = format!("{request:?}");
        let token = created(&mut root, request.clone()).await.token.unwrap();
        assert_eq!((token.name, token.user_id), (request.name, request.user_id), "{shown}");
        assert_eq!((token.scopes, token.labels), (request.scopes, request.labels), "{shown}");
    }
}

#[tokio::test]
async fn values_beyond_a_bound_are_refused_with_their_field() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let e = |times| "é".repeat(times);

    for (request, field) in [
        (named(""), "name"),
        (named(&e(101)), "name"),
        (named(" \u{a0}\u{2003} "), "name"),
        (named("two\nlines"), "name"),
        (named("\u{85}next"), "name"),
        (named("nul\0"), "name"),
        (of_user(""), "user_id"),
        (of_user(&(e(100) + "u")), "user_id"),
        (of_user("tab\t"), "user_id"),
        (in_organization(&(e(100) + "o")), "organization_id"),
        (in_organization("\u{7f}"), "organization_id"),
        (scoped(scopes(65)), "scopes"),
        (scoped(vec!["s".repeat(101)]), "scopes[0]"),
        (with_labels(33), "labels"),
        (labelled(&[("", "v")]), "labels"),
        (labelled(&[(&(e(31) + "kk"), "v")]), "labels"),
        (labelled(&[("k", &(e(127) + "vv"))]), "labels"),
        (labelled(&[("k", "\0")]), "labels"),
        (labelled(&[("\n", "v")]), "labels"),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.create_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{shown}");
    }
}

#[tokio::test]
async fn a_scope_outside_the_grammar_is_refused() {
    let replica = Replica::shared().await;
    let mut root = replica.root();

    for scope in [
        "",
        "*",
        "a*",
        "a:b*",
        "*:a",
        "a:*:b",
        "a::b",
        ":a",
        "a:",
        "A",
        "a:B",
        "-a",
        "a:-b",
        "a b",
        "é",
        "a\n",
        "tokend",
        "tokend:*",
        "tokend:all",
        "tokend:verify:*",
        "tokend:read:x",
        "tokend:root:",
    ] {
        let status = refused(
            root.create_token(scoped(texts(&["fine", scope]))).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
        );
        assert_eq!(fields(&status), ["scopes[1]"], "{scope:?}");
    }
}

#[tokio::test]
async fn all_invalid_fields_are_named_at_once() {
    let replica = Replica::shared().await;
    let request = CreateTokenRequest {
        organization_id: "o\n".to_owned(),
        user_id: String::new(),
        name: " ".to_owned(),
        expiration: None,
        scopes: texts(&["ok", "not ok"]),
        labels: [(String::new(), String::new())].into(),
        allowed_cidrs: texts(&["10.0.0.0/8", "ten"]),
        request_id: "one".to_owned(),
        grant: Some(Grant { users: texts(&[""]), ..Grant::default() }),
        owner_kind: 0,
        plan: "Free".to_owned(),
    };

    let status = refused(replica.root().create_token(request).await, Code::InvalidArgument, "INVALID_FIELD");

    assert_eq!(
        fields(&status),
        [
            "organization_id",
            "user_id",
            "name",
            "expiration",
            "scopes[1]",
            "labels",
            "allowed_cidrs[1]",
            "grant.users[0]",
            "request_id",
            "plan"
        ]
    );
}

#[tokio::test]
async fn a_revocation_needs_an_id_and_a_reason_of_at_most_500_bytes() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let too_large = "z".repeat(22);

    for (request, field) in [
        (RevokeTokenRequest::default(), "token_id"),
        (revocation("", ""), "token_id"),
        (revocation(&id[1..], ""), "token_id"),
        (revocation(&format!("{id}0"), ""), "token_id"),
        (revocation(&format!("{}-", &id[1..]), ""), "token_id"),
        (revocation(&too_large, ""), "token_id"),
        (revocation(&id, &("é".repeat(250) + "r")), "reason"),
        (revocation(&id, "two\nlines"), "reason"),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.revoke_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{shown}");
    }
    let longest = "é".repeat(250);
    let revoked = root.revoke_token(revocation(&id, &longest)).await.unwrap().into_inner();
    assert_eq!(revoked.token.unwrap().revoke_reason, longest);
}

#[tokio::test]
async fn required_scopes_have_the_limits_of_scopes() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut ask = async |required: Vec<String>| {
        let mut question = question("no secret", &[]);
        question.required_scopes = required;
        root.verify(question).await
    };

    ask(scopes(64)).await.unwrap();
    ask(vec!["s".repeat(100)]).await.unwrap();
    for (required, field) in [
        (scopes(65), "required_scopes"),
        (vec!["s".repeat(101)], "required_scopes[0]"),
        (texts(&["a", "a:*:b"]), "required_scopes[1]"),
        (texts(&["tokend:everything"]), "required_scopes[0]"),
    ] {
        let status = refused(ask(required).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field]);
    }
}
