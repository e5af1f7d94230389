//! Tokens before, at and long after their end.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    ChangeKind, CreateTokenRequest, DisableTokenRequest, GetTokenRequest, ListTokenEventsRequest, OwnerKind,
    RotateTokenRequest, TokenEvent, TokenEventKind, WatchTokensRequest,
};
use tokend::store::Store;

use crate::support::client::{Client, created, nanos, ordinary, revoked, rotated, rotation};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

const DAY: i64 = 86_400;
const CREATED: TokenEventKind = TokenEventKind::Created;
const SOON: TokenEventKind = TokenEventKind::ExpiresSoon;

fn for_days(days: i64) -> CreateTokenRequest {
    let ttl = prost_types::Duration { seconds: days * DAY, nanos: 0 };
    CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..ordinary() }
}

async fn events(client: &mut Client, id: &str) -> Vec<TokenEvent> {
    let request = ListTokenEventsRequest { token_id: id.to_owned(), ..Default::default() };
    client.list_token_events(request).await.unwrap().into_inner().events
}

async fn kinds(client: &mut Client, id: &str) -> Vec<TokenEventKind> {
    events(client, id).await.iter().map(TokenEvent::kind).collect()
}

/// Returns a warning's value of this field.
fn value_of<'a>(warning: &'a TokenEvent, field: &str) -> &'a str {
    let found = warning.changes.iter().find(|change| change.field == field);
    let change = found.unwrap_or_else(|| panic!("no {field} in {warning:?}"));
    assert_eq!(change.old_value, "", "{warning:?}");
    &change.new_value
}

fn whole_seconds(text: &str) -> i64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

/// Returns a token's id in the form of the database.
fn uuid(id: &str) -> uuid::Uuid {
    uuid::Uuid::from_bytes(tokend::secret::TokenId::parse(id).unwrap().to_bytes())
}

/// Changes a token as if this many days had passed.
async fn aged(replica: &Replica, id: &str, days: i64) {
    let id = uuid(id);
    let sql = format!(
        "UPDATE tokens SET create_time = create_time - interval '{days} days',
             expire_time = expire_time - interval '{days} days',
             revoke_time = revoke_time - interval '{days} days' WHERE id = '{id}'"
    );
    assert_eq!(replica.installation.database.execute(sql).await, 1);
}

#[tokio::test]
async fn a_token_gets_one_warning_for_each_time_ahead_on_any_number_of_replicas() {
    let installation = Installation::new().await;
    let first = installation.serve(installation.with_frequent_retention()).await;
    let _second = installation.serve(installation.with_frequent_retention()).await;
    let mut root = first.root();
    let mut watch = root.watch_tokens(WatchTokensRequest::default()).await.unwrap().into_inner();
    let id = created(&mut root, for_days(30)).await.token.unwrap().id;
    let short = created(&mut root, for_days(3)).await.token.unwrap().id;

    aged(&first, &id, 24).await;
    eventually("the first warning", async || (kinds(&mut root, &id).await.len() == 2).then_some(())).await;
    aged(&first, &id, 5).await;

    // A moved expiration is a new one, with both of its warnings.
    eventually("the other warnings", async || (kinds(&mut root, &id).await.len() == 4).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(kinds(&mut root, &id).await, [SOON, SOON, SOON, CREATED]);
    assert_eq!(kinds(&mut root, &short).await, [CREATED], "it was made to live for less than a week");
    let received = async {
        loop {
            let message = watch.message().await.unwrap().unwrap();
            if message.changes.iter().any(|c| c.kind() == ChangeKind::ExpiresSoon && c.token_id == id) {
                return;
            }
        }
    };
    crate::support::in_time("a watcher hears of it", received).await;
}

#[tokio::test]
async fn a_warning_has_the_expiration_the_time_left_and_its_lead_time() {
    let replica = Replica::with_frequent_retention().await;
    let mut root = replica.root();
    let request = CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..for_days(30) };
    let id = created(&mut root, request).await.token.unwrap().id;

    // Both warning times are passed at once.
    aged(&replica, &id, 29).await;

    eventually("both warnings", async || (kinds(&mut root, &id).await.len() == 3).then_some(())).await;
    let request = GetTokenRequest { token_id: id.clone() };
    let end = root.get_token(request).await.unwrap().into_inner().token.unwrap().expire_time.unwrap();
    let mut reported = Vec::new();
    for warning in events(&mut root, &id).await.iter().filter(|event| event.kind() == SOON) {
        let text = value_of(warning, "expire_time");
        let expiration = OffsetDateTime::parse(text, &Rfc3339).unwrap();
        assert_eq!(expiration.unix_timestamp_nanos(), nanos(Some(&end)), "{text}");
        let left = nanos(Some(&end)) - nanos(warning.event_time.as_ref());
        let time_left = i128::from(whole_seconds(value_of(warning, "time_left")));
        assert_eq!(time_left, left.div_euclid(1_000_000_000));
        reported.push(whole_seconds(value_of(warning, "warning")));
        assert_eq!((warning.changes.len(), warning.owner_kind()), (3, OwnerKind::Service));
    }
    reported.sort_unstable();
    assert_eq!(reported, [DAY, 7 * DAY]);
}

#[tokio::test]
async fn a_warning_comes_within_a_tenth_of_its_time_with_any_interval() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.retention.interval = Duration::from_hours(1);
    // Except for the first of these times, the job runs once at the start and then in an hour.
    config.retention.warnings = vec![Duration::from_secs(10), Duration::from_hours(24 * 7)];
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let ttl = prost_types::Duration { seconds: 11, nanos: 0 };
    let request = CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..ordinary() };
    let id = created(&mut root, request).await.token.unwrap().id;

    eventually("the warning", async || (kinds(&mut root, &id).await.len() == 2).then_some(())).await;

    assert_eq!(value_of(&events(&mut root, &id).await[0], "warning"), "10s");
}

#[tokio::test]
async fn superseded_disabled_and_revoked_tokens_get_no_warning() {
    let replica = Replica::with_frequent_retention().await;
    let mut root = replica.root();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(created(&mut root, for_days(30)).await.token.unwrap().id);
    }
    let grace = prost_types::Duration { seconds: 20 * DAY, nanos: 0 };
    let graced = RotateTokenRequest { grace_period: Some(grace), ..rotation(&ids[0]) };
    rotated(&mut root, graced).await;
    root.disable_token(DisableTokenRequest { token_id: ids[1].clone(), ..Default::default() }).await.unwrap();
    revoked(&mut root, &ids[2], "").await;
    // Each has six days left.
    for (id, days) in ids.iter().zip([14, 24, 24, 24]) {
        aged(&replica, id, days).await;
    }
    // The last one is in use. Two rounds after the others were aged, they would have been warned of, too.
    eventually("a round", async || (kinds(&mut root, &ids[3]).await.len() == 2).then_some(())).await;
    aged(&replica, &ids[3], 1).await;
    eventually("another", async || (kinds(&mut root, &ids[3]).await.len() == 3).then_some(())).await;
    for id in &ids[..3] {
        assert!(!kinds(&mut root, id).await.contains(&SOON));
    }
}

#[tokio::test]
async fn a_token_is_deleted_after_the_retention_and_its_events_stay() {
    let replica = Replica::with_frequent_retention().await;
    let mut root = replica.root();
    let service = CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..for_days(1) };
    let old = created(&mut root, service).await.token.unwrap().id;
    let recent = created(&mut root, for_days(1)).await.token.unwrap().id;

    aged(&replica, &recent, 300).await;
    aged(&replica, &old, 402).await;

    eventually("the old one is purged", async || {
        kinds(&mut root, &old).await.contains(&TokenEventKind::Purged).then_some(())
    })
    .await;
    let database = &replica.installation.database;
    assert_eq!(database.count("SELECT count(*) FROM tokens WHERE user_id = 'ada'").await, 1);
    assert!(!kinds(&mut root, &recent).await.contains(&TokenEventKind::Purged));
    let of_service = events(&mut root, &old).await;
    assert!(of_service.iter().all(|event| event.owner_kind() == OwnerKind::Service), "{of_service:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_purge_at_once_delete_each_due_token_once() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.with_frequent_retention()).await;
    let mut root = replica.root();
    let kept = created(&mut root, for_days(30)).await.token.unwrap().id;
    let database = &installation.database;
    // More than two batches.
    let over = "WITH over AS (
            INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
                created_by, expire_time, durable_hash, mac, mac_key_id)
            SELECT gen_random_uuid(), 'over', user_id, name, scopes, labels, allowed_cidrs,
                create_time - interval '500 days', created_by, create_time - interval '401 days', durable_hash,
                mac, mac_key_id
            FROM tokens, generate_series(1, 1300) WHERE user_id = 'ada' RETURNING id
        )
        INSERT INTO token_uses (token_id, last_use_time) SELECT id, now() - interval '402 days' FROM over";
    let stores: Vec<_> = (0..4)
        .map(|_| {
            let store = Store::new(database.options(), 2);
            store.open();
            store
        })
        .collect();
    assert_eq!(database.execute(over).await, 1_300);

    let purging = stores.iter().map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut purged = 0;
            for _ in 0..20 {
                purged += store.purge_tokens(std::time::Duration::from_hours(24 * 400)).await.unwrap();
                store.purge_changes().await.unwrap();
                store.purge_requests().await.unwrap();
                store.purge_replicas().await.unwrap();
            }
            purged
        })
    });
    let purging: Vec<_> = purging.collect();
    for purged in purging {
        // The replica's own job purges some of them.
        assert!(purged.await.unwrap() <= 1_300);
    }

    let left = "SELECT count(*) FROM tokens WHERE organization_id = 'over'";
    eventually("all are gone", async || (database.count(left).await == 0).then_some(())).await;
    let reported = "SELECT count(*) FROM token_events WHERE kind = 'purged'";
    assert_eq!(database.count(reported).await, 1_300);
    let once = "SELECT count(DISTINCT token_id) FROM token_events WHERE kind = 'purged'";
    assert_eq!(database.count(once).await, 1_300);
    let uses = "SELECT count(*) FROM token_uses WHERE token_id NOT IN (SELECT id FROM tokens)";
    assert_eq!(database.count(uses).await, 0);
    assert_eq!(kinds(&mut root, &kept).await, [CREATED]);
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn a_locked_token_does_not_keep_others_from_being_purged() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = created(&mut root, for_days(1)).await.token.unwrap().id;
        aged(&replica, &id, 10).await;
        ids.push(uuid(&id));
    }
    let mut holder = database.connect().await;
    let lock = format!("BEGIN; SELECT id FROM tokens WHERE id = '{}' FOR UPDATE", ids[0]);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut holder).await.unwrap();

    let mut config = replica.installation.with_frequent_retention();
    config.retention.kept = Duration::from_hours(24);
    let _purging = replica.installation.serve(config).await;

    let others = format!("SELECT count(*) FROM tokens WHERE id IN ('{}', '{}')", ids[1], ids[2]);
    eventually("the others are purged", async || (database.count(&*others).await == 0).then_some(())).await;
    let locked = format!("SELECT count(*) FROM tokens WHERE id = '{}'", ids[0]);
    assert_eq!(database.count(&*locked).await, 1);
    drop(holder);
    eventually("the locked one is purged", async || (database.count(&*locked).await == 0).then_some(()))
        .await;
}
