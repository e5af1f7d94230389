//! Disabling a user with all tokens in one step that no concurrent creation or rotation escapes, and taking back
//! exactly that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection as _, Executor as _};
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, DisableTokenRequest, DisableUserRequest, DisableUserResponse, EnableTokenRequest,
    EnableUserRequest, ListTokenEventsRequest, ListUsersRequest, OwnerKind, RevokeUserTokensRequest,
    RotateTokenRequest, TokenEventKind, TokenState, User, Verdict,
};
use tonic::{Code, Status};

use super::{a_statement_waits, copy_token, got, seconds, verdict};
use crate::support::client::{
    Client, created, created_with, leaver, nanos, new_request_id, ordinary, revoked, rotation, texts,
};
use crate::support::replica::Replica;
use crate::support::status::refused;
use crate::support::{eventually, in_time};

fn disabling(user_id: &str) -> DisableUserRequest {
    DisableUserRequest { user_id: user_id.to_owned(), ..Default::default() }
}

async fn disabled(client: &mut Client, user_id: &str) -> DisableUserResponse {
    client.disable_user(disabling(user_id)).await.unwrap().into_inner()
}

async fn enabled(client: &mut Client, user_id: &str) -> i64 {
    let request = EnableUserRequest { user_id: user_id.to_owned(), ..Default::default() };
    client.enable_user(request).await.unwrap().into_inner().enabled_count
}

async fn users(client: &mut Client) -> Vec<User> {
    client.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users
}

#[tokio::test]
async fn a_disabled_user_has_no_usable_token_and_gets_none() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let first = created(&mut root, ordinary()).await;
    let second = created(&mut root, ordinary()).await;
    let elsewhere = created_with(&mut root, "acme", &[]).await;
    let other = created(&mut root, CreateTokenRequest { user_id: "bob".to_owned(), ..ordinary() }).await;
    for made in [&first, &second, &elsewhere, &other] {
        assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);
    }
    let request = DisableUserRequest { reason: "on leave".to_owned(), ..disabling("ada") };

    let answer = root.disable_user(request).await.unwrap().into_inner();

    assert_eq!((answer.disabled_count, &*answer.organization_id), (2, "default"));
    assert!(nanos(answer.effective_time.as_ref()) >= nanos(answer.disable_time.as_ref()));
    let id = first.token.as_ref().unwrap().id.clone();
    for made in [&first, &second] {
        assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Disabled, "at once");
        let token = got(&mut root, &made.token.as_ref().unwrap().id).await;
        assert_eq!(token.state(), TokenState::Disabled);
        assert_eq!((token.user_disable_time, token.disable_time), (answer.disable_time, None));
    }
    for made in [&elsewhere, &other] {
        assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid, "another owner");
    }
    let mut own = replica.client(&first.secret);
    let myself =
        RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(&id) };
    refused(own.rotate_token(myself).await, Code::Unauthenticated, "CREDENTIAL_DISABLED");
    refused(root.create_token(ordinary()).await, Code::FailedPrecondition, "USER_DISABLED");
    refused(root.rotate_token(rotation(&id)).await, Code::FailedPrecondition, "USER_DISABLED");
    let enabling = EnableTokenRequest { token_id: id.clone() };
    root.enable_token(enabling).await.unwrap();
    assert_eq!(verdict(&mut root, &first.secret).await, Verdict::Disabled, "the user still is");

    assert_eq!(enabled(&mut root, "ada").await, 2);
    for made in [&first, &second] {
        assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid, "at once");
    }
    assert_eq!(got(&mut root, &id).await.user_disable_time, None);
    created(&mut root, ordinary()).await;
    root.rotate_token(rotation(&id)).await.unwrap();
}

#[tokio::test]
async fn enabling_takes_back_what_disabling_took_and_nothing_else() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(created(&mut root, ordinary()).await);
    }
    let id = |number: usize| made[number].token.as_ref().unwrap().id.clone();
    let disable = |number: usize| DisableTokenRequest { token_id: id(number), ..Default::default() };
    root.disable_token(disable(0)).await.unwrap();
    revoked(&mut root, &id(1), "before").await;

    assert_eq!(disabled(&mut root, "ada").await.disabled_count, 4, "all but the revoked one");
    root.disable_token(disable(2)).await.unwrap();
    revoked(&mut root, &id(3), "meanwhile").await;
    let mortal =
        "UPDATE tokens SET create_time = now() - interval '2 days', expire_time = now() - interval '1 day'
        WHERE id = (SELECT id FROM tokens ORDER BY create_time DESC LIMIT 1)";
    assert_eq!(replica.installation.database.execute(mortal).await, 1);
    assert_eq!(enabled(&mut root, "ada").await, 3, "without the one that was revoked meanwhile");

    let verdicts =
        [Verdict::Disabled, Verdict::Revoked, Verdict::Disabled, Verdict::Revoked, Verdict::Expired];
    for (made, expected) in made.iter().zip(verdicts) {
        assert_eq!(verdict(&mut root, &made.secret).await, expected);
        let token = got(&mut root, &made.token.as_ref().unwrap().id).await;
        assert_eq!(token.user_disable_time, None);
    }
    assert_eq!(got(&mut root, &id(1)).await.revoke_reason, "before");
}

#[tokio::test]
async fn a_repeat_keeps_the_first_time_and_reason_and_each_step_is_logged_once() {
    use TokenEventKind::{Created, Disabled, Enabled, UserDisabled, UserEnabled};
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let first = DisableUserRequest { reason: "first".to_owned(), ..disabling("ada") };
    let first = root.disable_user(first).await.unwrap().into_inner();
    let again = DisableUserRequest { reason: "again".to_owned(), ..disabling("ada") };
    let again = root.disable_user(again).await.unwrap().into_inner();
    assert_eq!((again.disabled_count, again.disable_time), (0, first.disable_time));
    // A user without tokens, who is told apart from one who is not disabled.
    assert_eq!(disabled(&mut root, "nobody").await.disabled_count, 0);
    let nobody = CreateTokenRequest { user_id: "nobody".to_owned(), ..ordinary() };
    refused(root.create_token(nobody).await, Code::FailedPrecondition, "USER_DISABLED");
    let listed = users(&mut root).await;
    let known: Vec<_> = listed.iter().map(|user| (&*user.user_id, &*user.disable_reason)).collect();
    assert_eq!(known, [("ada", "first"), ("nobody", ""), ("root", "")]);
    assert_eq!((listed[0].active_count, listed[0].token_count), (0, 1));
    for _ in 0..2 {
        enabled(&mut root, "ada").await;
    }

    let request = ListTokenEventsRequest { user_id: "ada".to_owned(), ..Default::default() };
    let events = root.list_token_events(request).await.unwrap().into_inner().events;
    let kinds: Vec<_> = events.iter().map(|event| (event.kind(), event.token_id.is_empty())).collect();
    assert_eq!(
        kinds,
        [(Enabled, false), (UserEnabled, true), (Disabled, false), (UserDisabled, true), (Created, false)]
    );
    let change = |event: usize, field: &str| {
        events[event].changes.iter().find(|change| change.field == field).cloned().unwrap()
    };
    assert_eq!(change(2, "disable_reason").new_value, "first");
    assert_eq!(change(3, "disable_reason").new_value, "first");
    assert_eq!(change(2, "user_disable_time").new_value, change(0, "user_disable_time").old_value);
    assert_eq!(events[2].token_id, made.token.unwrap().id);
}

#[tokio::test]
async fn one_token_that_the_caller_may_not_manage_keeps_the_user_as_is() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut writer = replica.caller("acme", &["tokend:write"]).await;
    let bob = |scopes: &[&str]| CreateTokenRequest {
        user_id: "bob".to_owned(),
        organization_id: "acme".to_owned(),
        scopes: texts(scopes),
        ..ordinary()
    };
    let made = created(&mut root, bob(&["a:b"])).await;
    let mighty = created(&mut root, bob(&["tokend:write"])).await.token.unwrap().id;
    let own = DisableUserRequest { organization_id: "acme".to_owned(), ..disabling("bob") };
    let read = created(&mut root, bob(&["tokend:read"])).await.token.unwrap().id;
    refused(writer.disable_user(own.clone()).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);
    created(&mut writer, bob(&[])).await;
    revoked(&mut root, &read, "").await;

    writer.disable_user(own.clone()).await.unwrap();

    // To give its power back takes what it takes to create it: a caller that ends cannot.
    let mortal = CreateTokenRequest {
        expiration: Some(Expiration::Ttl(seconds(3600).unwrap())),
        user_id: "mortal".to_owned(),
        ..bob(&["tokend:write"])
    };
    let mut mortal = replica.client(&created(&mut root, mortal).await.secret);
    let enabling = EnableUserRequest {
        organization_id: "acme".to_owned(),
        user_id: "bob".to_owned(),
        ..Default::default()
    };
    refused(mortal.enable_user(enabling.clone()).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(got(&mut root, &mighty).await.state(), TokenState::Disabled);
    refused(writer.create_token(bob(&[])).await, Code::FailedPrecondition, "USER_DISABLED");
    assert_eq!(writer.enable_user(enabling).await.unwrap().into_inner().enabled_count, 3);
    refused(writer.disable_user(disabling("")).await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn a_service_account_is_another_owner_than_the_person_of_its_name() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let service = CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..ordinary() };
    let person = created(&mut root, ordinary()).await;
    let service_token = created(&mut root, service.clone()).await;
    let id = service_token.token.as_ref().unwrap().id.clone();
    let next = root.rotate_token(rotation(&id)).await.unwrap().into_inner();
    assert_eq!(next.token.as_ref().unwrap().owner_kind(), OwnerKind::Service, "inherited");
    assert_eq!(person.token.as_ref().unwrap().owner_kind(), OwnerKind::User);

    assert_eq!(disabled(&mut root, "ada").await.disabled_count, 1);
    assert_eq!(verdict(&mut root, &person.secret).await, Verdict::Disabled);
    assert_eq!(verdict(&mut root, &next.secret).await, Verdict::Valid);
    created(&mut root, service.clone()).await;
    enabled(&mut root, "ada").await;
    let service_account = DisableUserRequest { owner_kind: OwnerKind::Service.into(), ..disabling("ada") };
    // With the one that was rotated: only revoked ones are left alone.
    assert_eq!(root.disable_user(service_account).await.unwrap().into_inner().disabled_count, 3);
    assert_eq!(verdict(&mut root, &person.secret).await, Verdict::Valid);
    assert_eq!(verdict(&mut root, &next.secret).await, Verdict::Disabled);
    refused(root.create_token(service).await, Code::FailedPrecondition, "USER_DISABLED");
    assert_eq!(root.revoke_user_tokens(leaver("ada")).await.unwrap().into_inner().revoked_count, 1);
    let service_account = RevokeUserTokensRequest { owner_kind: OwnerKind::Service.into(), ..leaver("ada") };
    assert_eq!(root.revoke_user_tokens(service_account).await.unwrap().into_inner().revoked_count, 3);
    let request = ListTokenEventsRequest { user_id: "ada".to_owned(), ..Default::default() };
    let events = root.list_token_events(request).await.unwrap().into_inner().events;
    let id = person.token.unwrap().id;
    assert_eq!(events.iter().filter(|event| event.owner_kind() == OwnerKind::User).count(), 6);
    for event in events.iter().filter(|event| !event.token_id.is_empty()) {
        assert_eq!(event.owner_kind() == OwnerKind::User, event.token_id == id, "{event:?}");
    }
}

#[tokio::test]
async fn a_concurrent_rotation_does_not_survive_and_a_later_creation_fails() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    // Blocks the rotation in the middle: it has the user's lock, and waits for the old token's row.
    let mut psql = database.connect().await;
    let mut held = psql.begin().await.unwrap();
    held.execute("SELECT id FROM tokens WHERE user_id = 'ada' FOR SHARE").await.unwrap();
    let (mut first, mut second, mut third) = (root.clone(), root.clone(), root.clone());
    let rotating = tokio::spawn(async move { first.rotate_token(rotation(&id)).await });
    a_statement_waits(database, "transactionid", "SELECT CASE WHEN t.id").await;
    let ending = tokio::spawn(async move { second.disable_user(disabling("ada")).await });
    a_statement_waits(database, "advisory", "SELECT pg_advisory_xact_lock(").await;
    let creating = tokio::spawn(async move { third.create_token(ordinary()).await });
    a_statement_waits(database, "advisory", "SELECT pg_advisory_xact_lock_shared(").await;

    held.rollback().await.unwrap();

    let new = in_time("the rotation", rotating).await.unwrap().unwrap().into_inner();
    assert_eq!(in_time("the disabling", ending).await.unwrap().unwrap().into_inner().disabled_count, 2);
    refused(in_time("the creation", creating).await.unwrap(), Code::FailedPrecondition, "USER_DISABLED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Disabled);
}

#[tokio::test]
async fn no_token_escapes_while_others_are_created_and_rotated() {
    let replica = Replica::start().await;
    let stopped = Arc::new(AtomicBool::new(false));
    let creators: Vec<_> = (0..4)
        .map(|_| {
            let (mut root, stopped) = (replica.root(), Arc::clone(&stopped));
            tokio::spawn(async move {
                let mut secrets = Vec::new();
                let denied = |status: &Status| {
                    assert_eq!(crate::support::status::reason(status).as_deref(), Some("USER_DISABLED"));
                };
                while !stopped.load(Ordering::Relaxed) {
                    let Ok(made) = root.create_token(ordinary()).await.inspect_err(denied) else { continue };
                    let made = made.into_inner();
                    secrets.push(made.secret);
                    let id = made.token.unwrap().id;
                    let next = root.rotate_token(rotation(&id)).await.inspect_err(denied);
                    secrets.extend(next.map(|next| next.into_inner().secret));
                }
                secrets
            })
        })
        .collect();
    let mut root = replica.root();
    let database = &replica.installation.database;
    let alive = "SELECT count(*) FROM tokens WHERE user_id = 'ada' AND revoke_time IS NULL";
    eventually("tokens are made", async || (database.count(alive).await > 20).then_some(())).await;

    disabled(&mut root, "ada").await;

    let before = database.count(alive).await;
    stopped.store(true, Ordering::Relaxed);
    let mut secrets = Vec::new();
    for creator in creators {
        secrets.extend(creator.await.unwrap());
    }
    assert_eq!(database.count(alive).await, before, "nothing was created afterwards");
    for secret in &secrets {
        assert_ne!(verdict(&mut root, secret).await, Verdict::Valid);
    }
    let unmarked = "SELECT count(*) FROM tokens WHERE user_id = 'ada' AND user_disable_time IS NULL";
    assert_eq!(database.count(unmarked).await, 0);
}

#[tokio::test]
async fn a_hundred_thousand_tokens_of_one_user_are_disabled_and_enabled_in_one_call_each() {
    let replica = Replica::large().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    copy_token(database, 99_999, "user_id = 'ada'").await;
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);

    let started = std::time::Instant::now();
    assert_eq!(disabled(&mut root, "ada").await.disabled_count, 100_000);
    println!("100,000 tokens disabled in {:?}", started.elapsed());
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Disabled);
    let started = std::time::Instant::now();
    let page = users(&mut root).await;
    println!("100,000 tokens counted in {:?}", started.elapsed());
    assert_eq!((&*page[0].user_id, page[0].active_count, page[0].token_count), ("ada", 0, 100_000));
    let started = std::time::Instant::now();
    assert_eq!(enabled(&mut root, "ada").await, 100_000);
    println!("100,000 tokens enabled in {:?}", started.elapsed());

    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);
    let marked = "SELECT count(*) FROM tokens WHERE user_disable_time IS NOT NULL";
    assert_eq!(database.count(marked).await, 0);
    let events = "SELECT count(*) FROM token_events WHERE kind IN ('disabled', 'enabled')";
    assert_eq!(database.count(events).await, 200_000);
}
