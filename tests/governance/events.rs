//! The audit log, as `ListTokenEvents` returns it.

use std::collections::BTreeSet;

use prost::Message as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    Attribution, CreateTokenRequest, ListTokenEventsRequest, OwnerKind, TokenEvent, TokenEventKind,
    UpdateTokenRequest,
};
use tonic::{Code, Request};

use crate::support::client::{Client, created, created_with, nanos, ordinary, revoked, rotation};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

pub(super) fn of_token(id: &str) -> ListTokenEventsRequest {
    ListTokenEventsRequest { token_id: id.to_owned(), ..Default::default() }
}

pub(super) async fn events(client: &mut Client, request: ListTokenEventsRequest) -> Vec<TokenEvent> {
    client.list_token_events(request).await.unwrap().into_inner().events
}

/// Wraps a message as a frontend sends it on behalf of a user, within a trace.
pub(super) fn on_behalf<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("tokend-acting-user", user.parse().unwrap());
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

#[tokio::test]
async fn events_name_actor_acting_user_and_changes() {
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
    assert_eq!(creation.attribution(), Attribution::Claimed);
    assert_eq!((&*update.acting_user, update.trace_id.len()), ("root", 32));
    assert_eq!(update.attribution(), Attribution::Proven);
    let [change] = &update.changes[..] else { panic!("{update:?}") };
    assert_eq!((&*change.field, &*change.old_value, &*change.new_value), ("name", "laptop", "desk"));
    let [change] = &revocation.changes[..] else { panic!("{revocation:?}") };
    assert_eq!((&*change.field, &*change.new_value), ("revoke_reason", "lost"));
    assert!(creation.changes.iter().any(|change| change.field == "name" && change.new_value == "laptop"));
    assert!(!format!("{events:?}").contains(&made.secret[27..]));
}

#[tokio::test]
async fn changed_labels_are_logged_as_values() {
    let replica = Replica::shared().await;
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

    let reported = events(&mut root, of_token(&id)).await;
    let [change] = &reported[0].changes[..] else { panic!("{reported:?}") };
    assert_eq!(change.old_value, r#"{"owner":"mallory","team":"x"}"#);
    assert_eq!(change.new_value, r#"{"owner":"mallory team=x"}"#);
}

#[tokio::test]
async fn the_logged_changes_of_a_rotation_are_those_at_its_commit() {
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

    let reported = events(&mut root, of_token(&id)).await;
    let rotated = reported.iter().find(|event| event.kind() == TokenEventKind::Rotated).unwrap();
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

/// Reads all that a listing shows, page by page.
async fn listed(client: &mut Client, mut request: ListTokenEventsRequest) -> Vec<TokenEvent> {
    let mut events = Vec::new();
    loop {
        let page = client.list_token_events(request.clone()).await.unwrap().into_inner();
        events.extend(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return events;
        }
    }
}

#[tokio::test]
async fn events_are_filtered_by_time_and_actor_with_any_other_filter() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for organization in ["acme", "other"] {
        for user_id in ["ada", "grace"] {
            let (organization_id, user_id) = (organization.to_owned(), user_id.to_owned());
            created(&mut root, CreateTokenRequest { organization_id, user_id, ..ordinary() }).await;
        }
    }
    // Three hours from each to the next, but for one that was written 50 minutes late.
    let copies = "INSERT INTO token_events
            (event_time, kind, token_id, organization_id, user_id, owner_kind, actor, changes)
        SELECT event_time + n * interval '3 hours' - CASE n WHEN 5 THEN interval '230 minutes' ELSE '0' END, kind,
            token_id, organization_id, user_id, CASE n % 3 WHEN 0 THEN 'service' WHEN 1 THEN 'user' END,
            CASE n % 4 WHEN 0 THEN 'tokend' WHEN 1 THEN 'cert:gateway' ELSE actor END, changes
        FROM token_events, generate_series(1, 8) AS n WHERE user_id <> 'root' ORDER BY n, id";
    assert_eq!(replica.installation.database.execute(copies).await, 32);
    let all = listed(&mut root, ListTokenEventsRequest { page_size: 7, ..Default::default() }).await;
    assert_eq!(all.len(), 37);
    let moment = |event: &TokenEvent| nanos(event.event_time.as_ref());

    let (some, root_id) = (&all[20], &replica.installation.root_secret[5..27]);
    let mut found = 0;
    for after in [None, Some(&all[30]), Some(&all[14])] {
        for before in [None, Some(&all[9]), Some(&all[14])] {
            let actors = ["", "tokend", "cert:gateway", "cert:nobody", "bootstrap", root_id];
            for (number, actor) in actors.into_iter().enumerate() {
                for owner in 0..8 {
                    let given = |bit: usize, text: &str| {
                        if owner & bit > 0 { text.to_owned() } else { String::new() }
                    };
                    let kinds = match owner {
                        2 | 5 => vec![TokenEventKind::Created],
                        3 => vec![TokenEventKind::Revoked, TokenEventKind::Created],
                        6 => vec![TokenEventKind::Purged],
                        _ => vec![],
                    };
                    let kind_of_owner =
                        [OwnerKind::Unspecified, OwnerKind::Service, OwnerKind::Unspecified, OwnerKind::User]
                            [(number + owner) % 4];
                    let request = ListTokenEventsRequest {
                        owner_kind: kind_of_owner.into(),
                        kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
                        organization_id: given(1, &some.organization_id),
                        user_id: given(2, &some.user_id),
                        token_id: given(4, &some.token_id),
                        occurred_after: after.and_then(|event| event.event_time),
                        occurred_before: before.and_then(|event| event.event_time),
                        actor: actor.to_owned(),
                        page_size: 3,
                        ..Default::default()
                    };
                    let meant = |event: &&TokenEvent| {
                        (request.organization_id.is_empty()
                            || event.organization_id == request.organization_id)
                            && (request.user_id.is_empty() || event.user_id == request.user_id)
                            && (request.token_id.is_empty() || event.token_id == request.token_id)
                            && after.is_none_or(|after| moment(event) >= moment(after))
                            && before.is_none_or(|before| moment(event) < moment(before))
                            && (actor.is_empty() || event.actor == actor)
                            && (kind_of_owner == OwnerKind::Unspecified
                                || event.owner_kind() == kind_of_owner)
                            && (kinds.is_empty() || kinds.contains(&event.kind()))
                    };
                    let expected: Vec<_> = all.iter().filter(meant).cloned().collect();
                    found += expected.len();
                    assert_eq!(listed(&mut root, request.clone()).await, expected, "{request:?}");
                }
            }
        }
    }
    assert!(found > 500, "{found}");
}

#[tokio::test]
async fn a_long_search_without_hits_ends_and_the_next_page_continues_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    let id = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    let copies = "INSERT INTO token_events
            (event_time, kind, token_id, organization_id, user_id, actor, changes)
        SELECT event_time, kind, token_id, organization_id, user_id, 'tokend', changes
        FROM token_events, generate_series(1, 25000) WHERE user_id = 'ada' AND kind = 'created' LIMIT 25000";
    assert_eq!(replica.installation.database.execute(copies).await, 25_000);
    let actor = replica.installation.root_secret[5..27].to_owned();
    let request = ListTokenEventsRequest { actor, ..Default::default() };

    let page = reader.list_token_events(request.clone()).await.unwrap().into_inner();
    assert!(page.events.is_empty() && !page.next_page_token.is_empty(), "{page:?}");
    let events = listed(&mut reader, request.clone()).await;

    assert!(events.iter().any(|event| event.token_id == id), "{events:?}");
    // The page belongs to its filters.
    for other in [
        ListTokenEventsRequest { actor: String::new(), ..request.clone() },
        ListTokenEventsRequest { actor: "tokend".to_owned(), ..request.clone() },
        ListTokenEventsRequest { kinds: vec![1], ..request.clone() },
        ListTokenEventsRequest { owner_kind: 1, ..request.clone() },
        ListTokenEventsRequest { occurred_after: Some(prost_types::Timestamp::default()), ..request.clone() },
        ListTokenEventsRequest { occurred_before: Some(prost_types::Timestamp::default()), ..request },
    ] {
        let foreign = ListTokenEventsRequest { page_token: page.next_page_token.clone(), ..other };
        refused(reader.list_token_events(foreign).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
}

#[tokio::test]
async fn an_invalid_actor_or_time_is_refused_by_name() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let never = Some(prost_types::Timestamp { seconds: 0, nanos: -1 });
    for actor in ["somebody", "cert:a\0b", "Bootstrap", "tokend ", &format!("cert:{}", "x".repeat(296))] {
        let request = ListTokenEventsRequest {
            actor: actor.to_owned(),
            occurred_after: never,
            occurred_before: never,
            ..Default::default()
        };
        let status = root.list_token_events(request).await.unwrap_err();
        assert_eq!(fields(&status), ["occurred_after", "occurred_before", "actor"], "{actor:?}: {status:?}");
    }
    for kind in [0, 99, -1] {
        let request = ListTokenEventsRequest { kinds: vec![1, kind], ..Default::default() };
        let status = root.list_token_events(request).await.unwrap_err();
        assert_eq!(fields(&status), ["kinds"], "{kind}: {status:?}");
    }
}

#[tokio::test]
async fn a_page_of_long_events_stays_below_the_size_limit_of_clients() {
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
async fn a_caller_sees_only_the_log_of_its_own_organization() {
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
