//! A caller with `tokend:self` manages the tokens of its own user, and issues nothing that it does not have.

use prost_types::Duration;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, DisableTokenRequest, DisableUserRequest, EnableTokenRequest, EnableUserRequest,
    GetTokenRequest, ListTokenEventsRequest, ListTokensRequest, OwnerKind, RotateTokenRequest, TokenState,
    UpdateTokenRequest, Verdict,
};
use tonic::{Code, Status};

use crate::support::client::{
    Client, created, leaver, mask, new_request_id, ordinary, renaming, revocation, revoked, rotated,
    rotation, second, texts, verified,
};
use crate::support::replica::{Installation, Replica};
use crate::support::status::{check, refused};

const END: i64 = 32_503_680_000;

fn of_user(organization_id: &str, user_id: &str, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        scopes: texts(scopes),
        ..ordinary()
    }
}

/// Returns a client of Ada in acme with `tokend:self` and these scopes, and the id of its token.
async fn ada(replica: &Replica, scopes: &[&str]) -> (Client, String) {
    let request = of_user("acme", "ada", &[&["tokend:self"], scopes].concat());
    let made = created(&mut replica.root(), request).await;
    (replica.client(&made.secret), made.token.unwrap().id)
}

/// Returns a request for a token of the caller's own user.
fn for_itself(scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { user_id: String::new(), ..of_user("", "", scopes) }
}

fn disabling(token_id: &str) -> DisableTokenRequest {
    DisableTokenRequest { token_id: token_id.to_owned(), ..Default::default() }
}

fn enabling(token_id: &str) -> EnableTokenRequest {
    EnableTokenRequest { token_id: token_id.to_owned() }
}

/// Returns what the call that changes a token is refused for.
async fn changes(client: &mut Client, id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    vec![
        ("update", client.update_token(renaming(id)).await.map(drop)),
        ("rotate", client.rotate_token(rotation(id)).await.map(drop)),
        ("disable", client.disable_token(disabling(id)).await.map(drop)),
        ("enable", client.enable_token(enabling(id)).await.map(drop)),
        ("revoke", client.revoke_token(revocation(id, "")).await.map(drop)),
    ]
}

#[tokio::test]
async fn a_user_makes_changes_and_ends_tokens_of_its_own() {
    let replica = Replica::start().await;
    let (mut ada, own) = ada(&replica, &["repo:*"]).await;

    let made = created(&mut ada, for_itself(&["repo:read"])).await.token.unwrap();
    assert_eq!((&*made.organization_id, &*made.user_id, &made.created_by), ("acme", "ada", &own));
    created(&mut ada, CreateTokenRequest { user_id: "ada".to_owned(), ..for_itself(&["repo:x:*"]) }).await;
    ada.update_token(renaming(&made.id)).await.unwrap();
    ada.disable_token(disabling(&made.id)).await.unwrap();
    ada.enable_token(enabling(&made.id)).await.unwrap();
    let new = rotated(&mut ada, rotation(&made.id)).await;
    assert_eq!(verified(&mut replica.root(), &new.secret, &["repo:read"]).await.verdict(), Verdict::Valid);
    let id = new.token.unwrap().id;
    let found = ada.get_token(GetTokenRequest { token_id: id.clone() }).await.unwrap().into_inner().token;
    assert_eq!(found.unwrap().name, "renamed");
    assert_eq!(revoked(&mut ada, &id, "").await.token.unwrap().state(), TokenState::Revoked);
}

#[tokio::test]
async fn tokens_of_others_are_not_found_and_not_listed() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (mut ada, own) = ada(&replica, &["repo:*"]).await;
    let mine = created(&mut ada, for_itself(&["repo:read"])).await.token.unwrap().id;

    for (organization, user) in [("acme", "bob"), ("other", "ada")] {
        let foreign = created(&mut root, of_user(organization, user, &[])).await.token.unwrap().id;
        for (act, outcome) in changes(&mut ada, &foreign).await {
            let status = outcome.expect_err(act);
            check(&status, Code::NotFound, "TOKEN_NOT_FOUND");
        }
        let get = GetTokenRequest { token_id: foreign.clone() };
        refused(ada.get_token(get).await, Code::NotFound, "TOKEN_NOT_FOUND");
        let events = ListTokenEventsRequest { token_id: foreign.clone(), ..Default::default() };
        assert!(ada.list_token_events(events).await.unwrap().into_inner().events.is_empty());
    }
    let listed = ada.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.iter().map(|token| &token.id).collect::<Vec<_>>(), [&mine, &own]);
    let events = ada.list_token_events(ListTokenEventsRequest::default()).await.unwrap().into_inner().events;
    let named: Vec<_> = events.iter().map(|event| &event.token_id).collect();
    assert_eq!(named, [&mine, &own]);
}

#[tokio::test]
async fn a_person_and_a_service_account_of_one_id_do_not_see_each_others_events() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (mut person, of_person) = ada(&replica, &["repo:*"]).await;
    let service = CreateTokenRequest {
        owner_kind: OwnerKind::Service.into(),
        ..of_user("acme", "ada", &["tokend:self", "repo:*"])
    };
    let made = created(&mut root, service).await;
    let (mut service, of_service) = (replica.client(&made.secret), made.token.unwrap().id);
    for kind in [OwnerKind::User, OwnerKind::Service] {
        // Events of the owner itself, and a second one of each token.
        let user = DisableUserRequest {
            organization_id: "acme".to_owned(),
            user_id: "ada".to_owned(),
            owner_kind: kind.into(),
            ..Default::default()
        };
        root.disable_user(user.clone()).await.unwrap();
        let user = EnableUserRequest {
            organization_id: user.organization_id,
            user_id: user.user_id,
            owner_kind: user.owner_kind,
        };
        root.enable_user(user).await.unwrap();
    }

    for (client, kind, own, foreign) in [
        (&mut person, OwnerKind::User, &of_person, &of_service),
        (&mut service, OwnerKind::Service, &of_service, &of_person),
    ] {
        let all = ListTokenEventsRequest::default();
        for request in [
            all.clone(),
            ListTokenEventsRequest { user_id: "ada".to_owned(), ..all.clone() },
            ListTokenEventsRequest { owner_kind: kind.into(), ..all.clone() },
        ] {
            let events = client.list_token_events(request).await.unwrap().into_inner().events;
            assert_eq!(events.len(), 5, "{kind:?}: {events:?}");
            assert!(events.iter().all(|event| event.owner_kind() == kind), "{events:?}");
            assert!(events.iter().all(|event| event.token_id.is_empty() || event.token_id == *own));
        }
        let of_foreign = ListTokenEventsRequest { token_id: foreign.clone(), ..all.clone() };
        assert!(client.list_token_events(of_foreign).await.unwrap().into_inner().events.is_empty());
        let other = if kind == OwnerKind::User { OwnerKind::Service } else { OwnerKind::User };
        let named = ListTokenEventsRequest { owner_kind: other.into(), ..all };
        refused(client.list_token_events(named).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    }
}

#[tokio::test]
async fn a_user_or_an_organization_in_a_request_gives_no_authority() {
    let replica = Replica::start().await;
    let (mut ada, _) = ada(&replica, &["repo:*"]).await;

    let creation = CreateTokenRequest { user_id: "bob".to_owned(), ..for_itself(&[]) };
    refused(ada.create_token(creation).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let listing = ListTokensRequest { user_id: "bob".to_owned(), ..Default::default() };
    refused(ada.list_tokens(listing).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let events = ListTokenEventsRequest { user_id: "bob".to_owned(), ..Default::default() };
    refused(ada.list_token_events(events).await, Code::PermissionDenied, "GRANT_EXCEEDED");

    let creation = CreateTokenRequest { organization_id: "other".to_owned(), ..for_itself(&[]) };
    refused(ada.create_token(creation).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
    let listing = ListTokensRequest { organization_id: "other".to_owned(), ..Default::default() };
    refused(ada.list_tokens(listing).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
    refused(ada.revoke_user_tokens(leaver("ada")).await, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn nothing_is_issued_that_the_caller_lacks() {
    let replica = Replica::start().await;
    let request = CreateTokenRequest {
        expiration: Some(Expiration::ExpireTime(second(END))),
        allowed_cidrs: texts(&["127.0.0.0/8"]),
        ..of_user("acme", "ada", &["tokend:self", "repo:*"])
    };
    let mut ada = replica.client(&created(&mut replica.root(), request).await.secret);
    let within = |scopes: &[&str]| CreateTokenRequest {
        expiration: Some(Expiration::ExpireTime(second(END))),
        allowed_cidrs: texts(&["127.0.0.1/32"]),
        ..for_itself(scopes)
    };

    for scopes in [&["orders:read"][..], &["repo"], &["repo:read", "orders:*"], &["tokend:self"]] {
        refused(ada.create_token(within(scopes)).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    }
    for scope in ["tokend:read", "tokend:write", "tokend:verify", "tokend:root"] {
        refused(ada.create_token(within(&[scope])).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
    let never = Some(Expiration::NoExpiration(true));
    let later = Some(Expiration::Ttl(Duration { seconds: END, nanos: 0 }));
    for expiration in [never, later, Some(Expiration::ExpireTime(second(END + 1)))] {
        let outcome = ada.create_token(CreateTokenRequest { expiration, ..within(&[]) }).await;
        refused(outcome, Code::PermissionDenied, "GRANT_EXCEEDED");
    }
    for networks in [&[][..], &["126.0.0.0/7"], &["127.0.0.1/32", "10.0.0.0/8"]] {
        let request = CreateTokenRequest { allowed_cidrs: texts(networks), ..within(&[]) };
        refused(ada.create_token(request).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    }

    let made = created(&mut ada, within(&["repo:read", "repo:x:*"])).await.token.unwrap().id;
    let scopes = UpdateTokenRequest {
        token_id: made.clone(),
        scopes: texts(&["orders:read"]),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    };
    refused(ada.update_token(scopes).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let longer = RotateTokenRequest {
        expiration: Some(tokend::api::proto::rotate_token_request::Expiration::NoExpiration(true)),
        ..rotation(&made)
    };
    refused(ada.rotate_token(longer).await, Code::PermissionDenied, "GRANT_EXCEEDED");
}

#[tokio::test]
async fn a_wider_token_of_the_same_user_is_only_ended() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (mut ada, _) = ada(&replica, &["repo:*"]).await;
    let wider = created(&mut root, of_user("acme", "ada", &["orders:*"])).await;
    let id = wider.token.unwrap().id;

    for (act, outcome) in changes(&mut ada, &id).await {
        match act {
            "disable" | "revoke" => assert!(outcome.is_ok(), "{act} {outcome:?}"),
            _ => check(&outcome.expect_err(act), Code::PermissionDenied, "GRANT_EXCEEDED"),
        }
    }
    assert_eq!(verified(&mut root, &wider.secret, &[]).await.verdict(), Verdict::Revoked);

    let writer = created(&mut root, of_user("acme", "ada", &["tokend:write"])).await.token.unwrap().id;
    for (act, outcome) in changes(&mut ada, &writer).await {
        check(&outcome.expect_err(act), Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
}

#[tokio::test]
async fn it_rotates_and_ends_itself_but_does_not_change_itself() {
    let replica = Replica::start().await;
    let (mut ada, own) = ada(&replica, &["repo:*"]).await;
    let other =
        created(&mut replica.root(), of_user("acme", "ada", &["tokend:self"])).await.token.unwrap().id;

    refused(ada.update_token(renaming(&own)).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    refused(ada.rotate_token(rotation(&other)).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    ada.revoke_token(revocation(&other, "")).await.unwrap();
    let itself = RotateTokenRequest {
        grace_period: Some(Duration { seconds: 60, nanos: 0 }),
        request_id: new_request_id(),
        ..rotation(&own)
    };
    let new = rotated(&mut ada, itself).await;
    let mut ada = replica.client(&new.secret);
    created(&mut ada, for_itself(&["repo:read"])).await;
    ada.revoke_token(revocation(&new.token.unwrap().id, "")).await.unwrap();
    refused(ada.create_token(for_itself(&[])).await, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn one_that_also_reads_or_writes_has_both_rights() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let bob = created(&mut root, of_user("acme", "bob", &[])).await.token.unwrap().id;
    let (mut reader, _) = ada(&replica, &["tokend:read"]).await;
    let (mut writer, _) = ada(&replica, &["tokend:write"]).await;

    reader.get_token(GetTokenRequest { token_id: bob.clone() }).await.unwrap();
    refused(reader.update_token(renaming(&bob)).await, Code::NotFound, "TOKEN_NOT_FOUND");
    writer.update_token(renaming(&bob)).await.unwrap();
    let get = GetTokenRequest { token_id: bob };
    refused(writer.get_token(get).await, Code::NotFound, "TOKEN_NOT_FOUND");
    // A caller with tokend:write issues tokend:self without having it.
    let mut other = replica.caller("acme", &["tokend:write"]).await;
    created(&mut other, of_user("", "carol", &["tokend:self"])).await;
}

#[tokio::test]
async fn creating_rotating_and_disabling_at_once_on_three_replicas_issues_nothing_wider() {
    let installation = Installation::new().await;
    let (one, two, three) = (
        installation.serve(installation.config()).await,
        installation.serve(installation.config()).await,
        installation.serve(installation.config()).await,
    );
    let request = of_user("acme", "ada", &["tokend:self", "repo:*"]);
    let secret = created(&mut one.root(), request).await.secret;
    let old = created(&mut one.client(&secret), for_itself(&["repo:read"])).await.token.unwrap().id;

    for _ in 0..10 {
        let made = created(&mut one.client(&secret), for_itself(&["repo:read"])).await.token.unwrap().id;
        let [mut a, mut b, mut c, mut d] = [&one, &two, &three, &one].map(|replica| replica.client(&secret));
        let widened = UpdateTokenRequest {
            token_id: made.clone(),
            scopes: texts(&["orders:*"]),
            update_mask: mask(&["scopes"]),
            ..Default::default()
        };
        let (creation, rotation, disabled, widened) = tokio::join!(
            a.create_token(for_itself(&["repo:write"])),
            b.rotate_token(rotation(&made)),
            c.disable_token(disabling(&made)),
            d.update_token(widened),
        );
        creation.unwrap();
        refused(widened, Code::PermissionDenied, "GRANT_EXCEEDED");
        disabled.unwrap();
        if let Err(status) = rotation {
            check(&status, Code::FailedPrecondition, "TOKEN_DISABLED");
        }
    }

    let listing = ListTokensRequest { page_size: 100, ..Default::default() };
    let tokens = one.client(&secret).list_tokens(listing).await.unwrap().into_inner().tokens;
    assert!(tokens.len() > 20 && tokens.iter().any(|token| token.id == old));
    for token in tokens {
        assert_eq!((&*token.organization_id, &*token.user_id), ("acme", "ada"));
        assert!(token.scopes.iter().all(|scope| scope == "tokend:self" || scope.starts_with("repo:")));
    }
}
