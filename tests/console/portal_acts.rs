//! What is done in a portal session: nothing beyond its user, its scopes, and what the token that vouches may issue.

use tokend::api::proto::{
    Attribution, CreateTokenRequest, DisableTokenRequest, Grant, ListTokenEventsRequest, OwnerKind,
    TokenEvent, TokenEventKind,
};

use super::portal::{backend, opened};
use super::{Person, tokens_of};
use crate::support::client::{Client, created, created_with, ordinary, texts};
use crate::support::replica::Replica;

/// Returns the events of a token, newest first.
async fn events(root: &mut Client, id: &str) -> Vec<TokenEvent> {
    let request = ListTokenEventsRequest { token_id: id.to_owned(), ..Default::default() };
    root.list_token_events(request).await.unwrap().into_inner().events
}

fn of(organization_id: &str, user_id: &str, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        scopes: texts(scopes),
        ..ordinary()
    }
}

/// Sends a form for a token of this user.
async fn generated(person: &Person, user: &str, more: &[(&str, &str)]) -> (u16, String) {
    let nonce = person.new_form().await;
    let fields = [&[("form", &*nonce), ("name", "n"), ("user", user)], more].concat();
    let reply = person.post("/tokens/new", &fields).await;
    (reply.status, reply.body)
}

#[tokio::test]
async fn a_user_manages_own_tokens_and_the_log_says_who_vouched() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = backend(&replica, "acme", None).await;
    let backend_id = made.token.unwrap().id;
    let ada = opened(&replica, &mut replica.client(&made.secret), "ada", &["reports:*"]).await;

    let nonce = ada.new_form().await;
    let form = ada.get(&format!("/tokens/new?form={nonce}")).await.body;
    assert!(form.contains("readonly value=\"ada\"") && form.contains("value=\"reports:*\""), "{form}");
    assert!(!form.contains("name=\"privilege\"") && !form.contains("TOKEND_SECRET"), "{form}");
    let (_, secret) = ada.created(&nonce, "laptop", &[("scopes", "reports:read")]).await;
    let id = secret[5..27].to_owned();
    for (act, fields) in [
        ("edit", &[("name", "desk"), ("scopes", "reports:write"), ("expiration", "7d")][..]),
        ("disable", &[]),
        ("enable", &[]),
    ] {
        let path = format!("/tokens/{id}/{act}");
        let page = ada.get(&path).await.body;
        let version = if act == "edit" { super::hidden(&page, "version").to_owned() } else { String::new() };
        let reply = ada.post(&path, &[fields, &[("version", &*version)]].concat()).await;
        assert_eq!(reply.status, 303, "{act}: {}", reply.body);
    }
    let page = ada.get(&format!("/tokens/{id}")).await.body;
    assert!(page.contains("vouched") && page.contains("desk"), "{page}");
    let nonce = {
        let opened = ada.get(&format!("/tokens/{id}/rotate")).await;
        let form = ada.get(&opened.header("location").unwrap()).await.body;
        super::hidden(&form, "form").to_owned()
    };
    let rotate = [("form", &*nonce), ("grace", "1h"), ("expiration", "7d")];
    let reply = ada.post(&format!("/tokens/{id}/rotate"), &rotate).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
    let reply = ada.post(&format!("/tokens/{id}/revoke"), &[("confirmation", "revoke")]).await;
    assert_eq!(reply.status, 303, "{}", reply.body);

    let log = events(&mut root, &id).await;
    let kinds: Vec<_> = log.iter().map(TokenEvent::kind).collect();
    for kind in [
        TokenEventKind::Created,
        TokenEventKind::Updated,
        TokenEventKind::Disabled,
        TokenEventKind::Enabled,
        TokenEventKind::Rotated,
        TokenEventKind::Revoked,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}: {kinds:?}");
    }
    for event in &log {
        assert_eq!(event.attribution(), Attribution::Vouched, "{event:?}");
        assert_eq!((&*event.acting_user, &*event.actor), ("ada", &*backend_id), "{event:?}");
    }
    let own = tokens_of(&replica, "ada").await;
    assert!(own.iter().all(|token| token.created_by == backend_id), "{own:?}");
}

#[tokio::test]
async fn nothing_of_others_is_reached_and_a_user_in_a_form_is_no_authority() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = backend(&replica, "acme", None).await;
    let backend_id = made.token.unwrap().id;
    let bob = created(&mut root, of("acme", "bob", &[])).await.token.unwrap().id;
    let elsewhere = created(&mut root, of("other", "ada", &[])).await.token.unwrap().id;
    let service = CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..of("acme", "ada", &[]) };
    let service = created(&mut root, service).await.token.unwrap().id;
    let ada = opened(&replica, &mut replica.client(&made.secret), "ada", &["reports:*"]).await;
    let before = events(&mut root, &bob).await.len();

    let list = ada.get("/tokens").await.body;
    for id in [&backend_id, &bob, &elsewhere, &service] {
        assert!(!list.contains(id.as_str()), "{id}");
        assert_eq!(ada.get(&format!("/tokens/{id}")).await.status, 404);
        for act in ["rotate", "edit", "disable", "enable", "revoke"] {
            let path = format!("/tokens/{id}/{act}");
            let (nonce, fields) = (ada.new_form().await, [("confirmation", "revoke"), ("version", "1")]);
            let more = [("form", &*nonce), ("grace", "1h"), ("expiration", "7d"), ("name", "x")];
            let reply = ada.post(&path, &[&fields[..], &more].concat()).await;
            assert!([403, 404].contains(&reply.status), "{path}: {} {}", reply.status, reply.body);
        }
    }
    for user in ["bob", "backend"] {
        let (status, page) = generated(&ada, user, &[("expiration", "7d")]).await;
        assert!(status == 403 && page.contains("id=\"user-problem\""), "{page}");
        assert_eq!(ada.get(&format!("/tokens?user={user}")).await.status, 403);
    }
    let (status, page) = generated(&ada, "ada", &[("expiration", "7d"), ("organization", "other")]).await;
    assert!(status == 403, "{page}");
    for scope in ["orders:read", "tokend:self", "tokend:write", "tokend:root", "report"] {
        for field in ["scopes", "privilege", "scope"] {
            let (status, page) = generated(&ada, "ada", &[("expiration", "7d"), (field, scope)]).await;
            let dropped = field == "privilege" && !scope.starts_with("tokend:");
            assert!(dropped || [400, 403].contains(&status), "{field} {scope}: {page}");
        }
    }
    assert!(
        tokens_of(&replica, "ada").await.iter().all(|token| token.name != "n" || token.scopes.is_empty())
    );
    assert_eq!(events(&mut root, &bob).await.len(), before);
}

#[tokio::test]
async fn a_token_that_vouches_for_its_own_user_is_not_managed_by_that_user() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["tokend:write", "tokend:read"]).await;
    let id = made.token.unwrap().id;
    let ada = opened(&replica, &mut replica.client(&made.secret), "ada", &[]).await;

    for act in ["rotate", "edit", "disable", "revoke"] {
        let nonce = ada.new_form().await;
        let fields = [("form", &*nonce), ("grace", "1h"), ("expiration", "7d"), ("confirmation", "revoke")];
        let more = [("version", "1"), ("name", "x")];
        let reply = ada.post(&format!("/tokens/{id}/{act}"), &[&fields[..], &more].concat()).await;
        assert_ne!(reply.status, 303, "{act}");
    }

    let log = events(&mut root, &id).await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(ada.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn tokens_are_within_the_grant_of_what_vouches() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let grant = Grant {
        scopes: texts(&["reports:*", "orders:read"]),
        user_prefixes: texts(&["a"]),
        longest_lifetime: Some(prost_types::Duration { seconds: 30 * 86_400, nanos: 0 }),
        networks: texts(&["10.0.0.0/8"]),
        ..Grant::default()
    };
    let made = backend(&replica, "acme", Some(grant)).await;
    let mut backend = replica.client(&made.secret);
    let ada = opened(&replica, &mut backend, "ada", &["reports:read"]).await;
    let wide = created(&mut root, of("acme", "ada", &["reports:read", "logs:read"])).await.token.unwrap().id;

    let within = ("networks", "10.1.0.0/16");
    for (fields, status) in [
        (&[("expiration", "90d"), within][..], 403),
        (&[("expiration", "never"), within], 403),
        (&[("expiration", "30d"), ("networks", "192.0.2.0/24")], 403),
        (&[("expiration", "30d")], 403),
        // The grant has it, the session has not.
        (&[("expiration", "30d"), within, ("scopes", "orders:read")], 403),
        (&[("expiration", "30d"), within, ("scopes", "reports:*")], 403),
        (&[("expiration", "30d"), within, ("scopes", "reports:read")], 303),
    ] {
        let (found, page) = generated(&ada, "ada", fields).await;
        assert_eq!(found, status, "{fields:?}: {page}");
    }
    // A wider one can be ended, and nothing else.
    let off = DisableTokenRequest { token_id: wide.clone(), ..Default::default() };
    root.disable_token(off).await.unwrap();
    let nonce = ada.new_form().await;
    for (act, fields) in
        [("rotate", &[("form", &*nonce), ("grace", "1h"), ("expiration", "7d")][..]), ("enable", &[])]
    {
        let reply = ada.post(&format!("/tokens/{wide}/{act}"), fields).await;
        assert_ne!(reply.status, 303, "{act}");
    }
    let reply = ada.post(&format!("/tokens/{wide}/revoke"), &[("confirmation", "revoke")]).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
}
