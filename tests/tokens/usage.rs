//! What is counted of verifications: on several replicas, when a batch is sent again, by hours and by days, and for
//! how long it is kept.

use std::time::Duration;

use tokend::clock;
use tokend::domain::usage::UseCount;
use tokend::domain::{OrganizationId, Verdict};
use tokend::secret::TokenId;
use tokend::store::Store;
use uuid::Uuid;

use crate::support::client::{created, ordinary, revoked, verified};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Installation;

const DAY: Duration = Duration::from_hours(24);

fn store(database: &Database) -> Store {
    let store = Store::new(database.options(), 2);
    store.open();
    store
}

fn uuid(token_id: &str) -> Uuid {
    Uuid::from_bytes(TokenId::parse(token_id).unwrap().to_bytes())
}

fn counted(number: u128, verifications: u64) -> UseCount {
    UseCount {
        id: TokenId::from_bytes(number.to_be_bytes()),
        organization_id: OrganizationId::parse("acme").unwrap(),
        verdict: Verdict::Valid,
        time: clock::now(),
        verifications,
        refusal: None,
    }
}

#[tokio::test]
async fn verifications_on_three_replicas_are_counted_by_token_and_verdict() {
    let installation = Installation::new().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(installation.serve(installation.config()).await);
    }
    let mut root = replicas[0].root();
    let (first, second) = (created(&mut root, ordinary()).await, created(&mut root, ordinary()).await);
    for replica in &replicas {
        let mut caller = replica.root();
        for _ in 0..40 {
            verified(&mut caller, &first.secret, &[]).await;
        }
        for _ in 0..7 {
            verified(&mut caller, &first.secret, &["no:such"]).await;
        }
        verified(&mut caller, &second.secret, &[]).await;
    }
    let id = second.token.unwrap().id;
    revoked(&mut root, &id, "").await;
    for _ in 0..5 {
        verified(&mut root, &second.secret, &[]).await;
    }

    let database = &installation.database;
    let (first, id) = (uuid(&first.token.unwrap().id), uuid(&id));
    // The calls of the root token itself are no verifications of it.
    let wanted = format!(
        "SELECT count(*) FROM (
             SELECT token_id, verdict::int, sum(verifications)::int FROM usage_hours WHERE organization_id = 'acme'
             GROUP BY 1, 2
             EXCEPT VALUES ('{first}'::uuid, 1, 120), ('{first}', 7, 21), ('{id}', 1, 3), ('{id}', 4, 5)
         ) AS other"
    );
    let all = "SELECT coalesce(sum(verifications), 0)::bigint FROM usage_hours";
    eventually("all are written", async || (database.count(all).await >= 149).then_some(())).await;
    for replica in replicas {
        replica.shut_down().outcome().await.unwrap();
    }
    assert_eq!((database.count(all).await, database.count(wanted).await), (149, 0));
}

#[tokio::test]
async fn a_batch_that_is_sent_again_adds_nothing() {
    let database = Database::migrated().await;
    let (store, writer) = (store(&database), Uuid::from_u128(1));
    let batch = [counted(1, 3), counted(1, 4), counted(2, 5), counted(3, 0)];

    for _ in 0..3 {
        store.record_usage(writer, 1, &batch).await.unwrap();
    }
    store.record_usage(writer, 2, &batch[..1]).await.unwrap();
    store.record_usage(writer, 1, &batch).await.unwrap();
    store.record_usage(Uuid::from_u128(2), 1, &batch[..1]).await.unwrap();

    assert_eq!(database.count("SELECT sum(verifications)::bigint FROM usage_hours").await, 12 + 3 + 3);
    assert_eq!(database.count("SELECT count(*) FROM usage_hours").await, 2);
    // A use that is not counted is a use.
    assert_eq!(database.count("SELECT count(*) FROM token_uses").await, 3);
}

#[tokio::test]
async fn a_wrong_clock_counts_within_the_last_day() {
    let database = Database::migrated().await;
    let (store, writer) = (store(&database), Uuid::from_u128(1));
    for (sequence, time) in [(1, "1970-01-01T00:00:00Z"), (2, "2999-01-01T00:00:00Z")] {
        let format = &time::format_description::well_known::Rfc3339;
        let time = time::OffsetDateTime::parse(time, format).unwrap();
        store.record_usage(writer, sequence, &[UseCount { time, ..counted(1, 1) }]).await.unwrap();
    }
    let recent = "SELECT count(*) FROM usage_hours WHERE hour BETWEEN now() - interval '25 hours' AND now()";
    assert_eq!(database.count(recent).await, 2);
}

#[tokio::test]
async fn complete_hours_are_added_to_their_day_once() {
    let database = Database::migrated().await;
    let hours = "INSERT INTO usage_hours (token_id, hour, verifications, verdict, organization_id)
         SELECT gen_random_uuid(), hour + n * interval '1 hour', 10, 1 + token, 'acme'
         FROM usage_rollup, generate_series(0, 5) AS n, generate_series(1, 100) AS token";
    assert_eq!(database.execute(hours).await, 600);
    database.execute("UPDATE usage_rollup SET hour = hour - interval '2 hours'").await;

    let rolling = (0..4).map(|_| {
        let store = store(&database);
        tokio::spawn(async move { while store.roll_up_usage().await.unwrap() {} })
    });
    for rolled in rolling.collect::<Vec<_>>() {
        rolled.await.unwrap();
    }

    let left = "SELECT count(*) FROM usage_rollup WHERE hour < date_trunc('hour', now(), 'UTC') - interval '26 hours'";
    assert_eq!(database.count(left).await, 0);
    let missing =
        "SELECT coalesce(sum(verifications), 0)::bigint - (SELECT sum(verifications) FROM usage_days)::bigint
         FROM usage_hours WHERE hour < (SELECT hour FROM usage_rollup)";
    assert_eq!(database.count(missing).await, 0);
    assert!(database.count("SELECT count(*) FROM usage_days").await > 0);
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_by_age() {
    // Its job sets the time by which may be deleted.
    let installation = Installation::new().await;
    let database = &installation.database;
    for (parent, suffix, first, last) in [
        ("hours", "20200101", "2020-01-01Z", "2020-01-02Z"),
        ("days", "20200101", "2020-01-01Z", "2020-02-01Z"),
    ] {
        let sql = format!(
            "CREATE TABLE usage_{parent}_{suffix} PARTITION OF usage_{parent} FOR VALUES FROM ('{first}') TO ('{last}')"
        );
        database.execute(sql).await;
    }
    let store = store(database);
    let count =
        |name: &str| format!("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '{name}'");

    // The time is not known: nothing is dropped.
    store.maintain_usage(31 * DAY, 400 * DAY).await.unwrap();
    assert_eq!(database.count(count("usage_%_20200101")).await, 2);
    assert!(database.try_execute("SELECT maintain_usage('1 hour', '400 days')").await.is_err());

    // Both are older than their time, but these hours are not in a day yet.
    database.execute("UPDATE usage_rollup SET hour = '2020-01-01Z'").await;
    database.execute("SELECT maintain_usage('31 days', '400 days')").await;
    assert_eq!(database.count(count("usage_hours_20200101")).await, 1);
    assert_eq!(database.count(count("usage_days_20200101")).await, 0);

    database.execute("UPDATE usage_rollup SET hour = '2020-01-02Z'").await;
    database.execute("SELECT maintain_usage('31 days', '400 days')").await;
    assert_eq!(database.count(count("usage_hours_20200101")).await, 0);

    // A day without partitions would keep every flush.
    let made = database.count(count("usage_hours_%")).await;
    let last = "SELECT max(right(relname, 8))::bigint - to_char(now() AT TIME ZONE 'UTC' + interval '7 days', 'YYYYMMDD')::bigint
         FROM pg_class WHERE relkind = 'r' AND relname LIKE 'usage_hours_%'";
    assert_eq!(database.count(last).await, 0);
    database.execute("DROP TABLE usage_hours_".to_owned() + &tomorrow(database).await).await;
    database.execute("SELECT maintain_usage(NULL, NULL)").await;
    assert_eq!(database.count(count("usage_hours_%")).await, made);
}

#[tokio::test]
async fn partitions_are_made_although_hours_cannot_be_added_to_their_days() {
    let installation = Installation::new().await;
    let database = &installation.database;
    for sql in [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON usage_days FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    ] {
        database.execute(sql).await;
    }
    let tomorrow = tomorrow(database).await;
    database.execute(format!("DROP TABLE usage_hours_{tomorrow}")).await;
    let replica = installation.serve(installation.with_frequent_retention()).await;

    let made = format!("SELECT count(*) FROM pg_class WHERE relname = 'usage_hours_{tomorrow}'");
    eventually("tomorrow has a partition", async || (database.count(made.as_str()).await == 1).then_some(()))
        .await;
    replica.shut_down().outcome().await.unwrap();
}

/// Returns the name of tomorrow's partition, after the name of its table.
async fn tomorrow(database: &Database) -> String {
    let day = "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYYMMDD')::bigint";
    database.count(day).await.to_string()
}

#[tokio::test]
async fn a_token_and_hour_takes_at_most_200_bytes_with_its_indexes() {
    let database = Database::migrated().await;
    // One token a millisecond.
    let id = |number| TokenId::generate(clock::unix_millis() + number, &mut clock::randomness()).unwrap();
    let ids: Vec<u128> = (0..20_000).map(|number| u128::from_be_bytes(id(number).to_bytes())).collect();
    let store = store(&database);
    for (sequence, ids) in (1..).zip(ids.chunks(5_000)) {
        let counts: Vec<_> = ids.iter().map(|id| counted(*id, 1_000)).collect();
        for repeat in 0..3 {
            store.record_usage(Uuid::from_u128(1), sequence * 10 + repeat, &counts).await.unwrap();
        }
    }
    let bytes = "SELECT sum(pg_total_relation_size(relid))::bigint / (SELECT count(*) FROM usage_hours)
         FROM pg_partition_tree('usage_hours') WHERE isleaf AND pg_relation_size(relid) > 0";
    let each = database.count(bytes).await;
    assert!(each <= 200, "{each} bytes");
}
