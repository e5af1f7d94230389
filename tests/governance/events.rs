//! The audit log, as `ListTokenEvents` returns it.

use std::collections::BTreeSet;

use prost::Message as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, ListTokenEventsRequest, TokenEvent, TokenEventKind, UpdateTokenRequest,
};
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::{Code, Request};

use crate::support::client::{Client, created, created_with, ordinary, revoked, rotation};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn of_token(id: &str) -> ListTokenEventsRequest {
    ListTokenEventsRequest { token_id: id.to_owned(), ..Default::default() }
}

async fn events(client: &mut Client, request: ListTokenEventsRequest) -> Vec<TokenEvent> {
    client.list_token_events(request).await.unwrap().into_inner().events
}

/// Wraps a message as a frontend sends it on behalf of a user, within a trace.
fn on_behalf<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("tokend-acting-user", user.parse().unwrap());
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

#[tokio::test]
async fn what_was_done_is_told_with_who_did_it_for_whom_and_what_it_changed() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = root.create_token(on_behalf("grace", ordinary())).await.unwrap().into_inner();
    let id = made.token.unwrap().id;
    let update = UpdateTokenRequest {
        token_id: id.clone(),
        name: "desk".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned()] }),
        ..Default::default()
    };
    root.update_token(update).await.unwrap();
    revoked(&mut root, &id, "lost").await;

    let events = events(&mut root, of_token(&id)).await;

    let kinds: Vec<_> = events.iter().map(TokenEvent::kind).collect();
    assert_eq!(kinds, [TokenEventKind::Revoked, TokenEventKind::Updated, TokenEventKind::Created]);
    let [revocation, update, creation] = &events[..] else { unreachable!() };
    assert_eq!((&*creation.acting_user, &*creation.trace_id), ("grace", TRACE));
    assert_eq!(creation.actor, replica.installation.root_secret[5..27]);
    assert_eq!((&*update.acting_user, update.trace_id.len()), ("", 32));
    let [change] = &update.changes[..] else { panic!("{update:?}") };
    assert_eq!((&*change.field, &*change.old_value, &*change.new_value), ("name", "laptop", "desk"));
    let [change] = &revocation.changes[..] else { panic!("{revocation:?}") };
    assert_eq!((&*change.field, &*change.new_value), ("revoke_reason", "lost"));
    assert!(creation.changes.iter().any(|change| change.field == "name" && change.new_value == "laptop"));
    assert!(!format!("{events:?}").contains(&made.secret[27..]));
}

#[tokio::test]
async fn whoever_is_acted_for_is_a_word_of_limited_length() {
    let replica = Replica::start().await;

    for bad in ["", &"x".repeat(201)] {
        let outcome = replica.root().create_token(on_behalf(bad, ordinary())).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["tokend-acting-user"]);
    }
}

#[tokio::test]
async fn whoever_is_acted_for_may_be_written_in_any_script_and_only_once() {
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
        let told = events(&mut root, of_token(&made.token.unwrap().id)).await;
        assert_eq!(told[0].acting_user, user);
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

#[tokio::test]
async fn labels_are_told_as_values() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let labelled = |labels: &[(&str, &str)]| {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let request =
        CreateTokenRequest { labels: labelled(&[("owner", "mallory"), ("team", "x")]), ..ordinary() };
    let id = created(&mut root, request).await.token.unwrap().id;
    let update = UpdateTokenRequest {
        token_id: id.clone(),
        labels: labelled(&[("owner", "mallory team=x")]),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        ..Default::default()
    };
    root.update_token(update).await.unwrap();

    let told = events(&mut root, of_token(&id)).await;
    let [change] = &told[0].changes[..] else { panic!("{told:?}") };
    assert_eq!(change.old_value, r#"{"owner":"mallory","team":"x"}"#);
    assert_eq!(change.new_value, r#"{"owner":"mallory team=x"}"#);
}

#[tokio::test]
async fn what_a_rotation_is_said_to_have_changed_was_so_when_it_did() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let database = &replica.installation.database;
    let expiring =
        |days: i64| Some(Expiration::Ttl(prost_types::Duration { seconds: days * 86_400, nanos: 0 }));
    let id = created(&mut root, CreateTokenRequest { expiration: expiring(30), ..ordinary() }).await;
    let id = id.token.unwrap().id;

    // The rotation has read the token and waits for its row, which is changed meanwhile.
    let mut other = database.connect().await;
    sqlx::raw_sql(
        "BEGIN; UPDATE tokens SET expire_time = expire_time - interval '10 days' WHERE user_id = 'ada'",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let rotating = {
        let (mut root, id) = (replica.root(), id.clone());
        tokio::spawn(async move { root.rotate_token(rotation(&id)).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'";
    eventually("the rotation waits", async || (database.count(waiting).await > 0).then_some(())).await;
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    rotating.await.unwrap().unwrap();

    let told = events(&mut root, of_token(&id)).await;
    let rotated = told.iter().find(|event| event.kind() == TokenEventKind::Rotated).unwrap();
    let change = rotated.changes.iter().find(|change| change.field == "expire_time").unwrap();
    let mut reader = database.connect().await;
    let (days,): (i64,) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT extract(day FROM '{}'::timestamptz - create_time)::bigint FROM tokens WHERE rotated_from IS NULL
             AND user_id = 'ada'",
        change.old_value
    )))
    .fetch_one(&mut reader)
    .await
    .unwrap();
    assert_eq!(days, 20, "{change:?}");
}

#[tokio::test]
async fn pages_show_each_event_once_and_belong_to_their_filters() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for _ in 0..7 {
        created(&mut root, ordinary()).await;
    }
    let page = |page_token: String, user_id: &str| ListTokenEventsRequest {
        page_size: 3,
        user_id: user_id.to_owned(),
        page_token,
        ..Default::default()
    };

    let (mut seen, mut token, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let answer = root.list_token_events(page(token, "ada")).await.unwrap().into_inner();
        assert!(answer.events.iter().all(|event| seen.insert(event.event_id)));
        pages += 1;
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        let foreign = root.list_token_events(page(token.clone(), "")).await;
        refused(foreign, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }

    assert_eq!((seen.len(), pages), (7, 3));
}

#[tokio::test]
async fn a_page_of_long_events_ends_before_it_is_longer_than_clients_take() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let labels = (0..32).map(|number| (format!("label-{number}"), "x".repeat(250))).collect();
    created(&mut root, CreateTokenRequest { labels, user_id: "grace".to_owned(), ..ordinary() }).await;
    let copies = "INSERT INTO token_events
            (event_time, kind, token_id, organization_id, user_id, actor, changes)
        SELECT event_time, kind, token_id, organization_id, user_id, actor, changes
        FROM token_events, generate_series(1, 600) WHERE user_id = 'grace'";
    assert_eq!(replica.installation.database.execute(copies).await, 600);

    let mut request =
        ListTokenEventsRequest { page_size: 1000, user_id: "grace".to_owned(), ..Default::default() };
    let (mut seen, mut pages) = (BTreeSet::new(), 0);
    loop {
        let answer = root.list_token_events(request.clone()).await.unwrap().into_inner();
        assert!(answer.encoded_len() < 2 << 20, "{} bytes", answer.encoded_len());
        assert!(answer.events.iter().all(|event| seen.insert(event.event_id)));
        pages += 1;
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }

    assert_eq!((seen.len(), pages), (601, 3));
}

#[tokio::test]
async fn a_caller_sees_the_log_of_its_own_organization_alone() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let foreign = created_with(&mut root, "other", &[]).await.token.unwrap().id;
    let own = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    let mut reader = replica.caller("acme", &["tokend:read"]).await;

    let seen = events(&mut reader, ListTokenEventsRequest::default()).await;

    assert!(seen.iter().all(|event| event.organization_id == "acme"));
    assert!(seen.iter().any(|event| event.token_id == own));
    assert!(events(&mut reader, of_token(&foreign)).await.is_empty());
    assert_eq!(events(&mut root, of_token(&foreign)).await.len(), 1);
}
