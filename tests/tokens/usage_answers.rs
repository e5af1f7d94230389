//! What `GetUsage` answers: by hour and by day, for a token, a user and an organization; for whom; and by which plans.

use prost_types::Timestamp;
use sqlx::{AssertSqlSafe, Row as _};
use tokend::api::proto::{
    CreateTokenRequest, GetUsageRequest, GetUsageResponse, OwnerKind, UsageStep, Verdict,
};
use tokend::store::Store;
use tonic::Code;

use crate::support::client::{Client, created, created_with, ordinary, texts, unknown_id, verified};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};
use crate::support::status::refused;

const HOUR: i64 = 3_600;

fn token_of(user: &str, kind: OwnerKind, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user.to_owned(),
        owner_kind: kind.into(),
        scopes: texts(scopes),
        ..ordinary()
    }
}

async fn usage(client: &mut Client, request: GetUsageRequest) -> GetUsageResponse {
    client.get_usage(request).await.unwrap().into_inner()
}

fn by_token(token_id: &str) -> GetUsageRequest {
    GetUsageRequest { token_id: token_id.to_owned(), ..Default::default() }
}

fn by_user(user_id: &str) -> GetUsageRequest {
    GetUsageRequest { organization_id: "acme".to_owned(), user_id: user_id.to_owned(), ..Default::default() }
}

/// Returns how often a verdict was given in the whole range.
fn sum(usage: &GetUsageResponse, verdict: Verdict) -> i64 {
    let counts = usage.points.iter().flat_map(|point| &point.counts);
    counts.filter(|count| count.verdict() == verdict).map(|count| count.verifications).sum()
}

#[tokio::test]
async fn usage_is_counted_for_a_token_a_user_and_an_organization() {
    use OwnerKind::{Service, User};
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut made = Vec::new();
    for (user, kind) in [("ada", User), ("ada", User), ("ada", Service), ("bob", User)] {
        made.push(created(&mut root, token_of(user, kind, &["a"])).await);
    }
    let other = created_with(&mut root, "other", &[]).await;
    for (index, token) in made.iter().enumerate() {
        for _ in 0..=index {
            verified(&mut root, &token.secret, &["a"]).await;
            verified(&mut root, &token.secret, &["b"]).await;
            verified(&mut root, &other.secret, &[]).await;
        }
    }
    let ids: Vec<_> = made.iter().map(|made| made.token.as_ref().unwrap().id.clone()).collect();
    let of = |organization: &str| GetUsageRequest {
        organization_id: organization.to_owned(),
        top_tokens: 3,
        ..Default::default()
    };
    let all = eventually("all are written", async || {
        let all = usage(&mut replica.root(), of("acme")).await;
        let other = usage(&mut replica.root(), of("other")).await;
        (sum(&all, Verdict::Valid) == 10 && sum(&other, Verdict::Valid) == 10).then_some(all)
    })
    .await;

    assert_eq!(sum(&all, Verdict::MissingScope), 10);
    let top: Vec<_> = all.top_tokens.iter().map(|token| (&*token.token_id, &*token.user_id)).collect();
    assert_eq!(top, [(&*ids[3], "bob"), (&*ids[2], "ada"), (&*ids[1], "ada")]);
    assert_eq!(all.top_tokens[1].owner_kind(), Service);
    let counts: Vec<_> =
        all.top_tokens[0].counts.iter().map(|count| (count.verdict(), count.verifications)).collect();
    assert_eq!(counts, [(Verdict::Valid, 4), (Verdict::MissingScope, 4)]);
    let (start, end) = (all.start_time.unwrap(), all.end_time.unwrap());
    assert_eq!((end.seconds - start.seconds, end.seconds % HOUR), (24 * HOUR, 0));
    assert!(all.points.iter().all(|point| point.start_time.unwrap().seconds % HOUR == 0));

    assert_eq!(sum(&usage(&mut root, by_token(&ids[2])).await, Verdict::MissingScope), 3);
    for step in [UsageStep::Hour, UsageStep::Day] {
        let query = |kind: OwnerKind| GetUsageRequest {
            owner_kind: kind.into(),
            step: step.into(),
            top_tokens: 100,
            ..by_user("ada")
        };
        for (kind, valid, tokens) in [(OwnerKind::Unspecified, 6, 3), (User, 3, 2), (Service, 3, 1)] {
            let usage = usage(&mut root, query(kind)).await;
            assert_eq!(
                (sum(&usage, Verdict::Valid), usage.top_tokens.len()),
                (valid, tokens),
                "{kind:?} {step:?}"
            );
        }
    }
    assert_eq!(usage(&mut root, by_user("nobody")).await.points, []);
}

#[tokio::test]
async fn a_caller_gets_the_usage_of_its_organization_or_its_own_user_alone() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    let own = created(&mut root, token_of("ada", OwnerKind::User, &["tokend:self"])).await;
    let service = created(&mut root, token_of("ada", OwnerKind::Service, &["tokend:self"])).await;
    let bobs = created(&mut root, token_of("bob", OwnerKind::User, &[])).await;
    let elsewhere = created_with(&mut root, "other", &[]).await.token.unwrap().id;
    for token in [&own, &service, &service, &bobs, &bobs, &bobs, &bobs] {
        verified(&mut root, &token.secret, &[]).await;
    }
    let all = GetUsageRequest { organization_id: "acme".to_owned(), ..Default::default() };
    eventually("all are written", async || {
        (sum(&usage(&mut replica.root(), all.clone()).await, Verdict::Valid) == 7).then_some(())
    })
    .await;

    assert_eq!(sum(&usage(&mut reader, GetUsageRequest::default()).await, Verdict::Valid), 7);
    let (mut ada, mut billing) = (replica.client(&own.secret), replica.client(&service.secret));
    assert_eq!(sum(&usage(&mut ada, GetUsageRequest::default()).await, Verdict::Valid), 1);
    assert_eq!(sum(&usage(&mut billing, GetUsageRequest::default()).await, Verdict::Valid), 2);
    assert_eq!(sum(&usage(&mut billing, by_user("ada")).await, Verdict::Valid), 2);
    let bob = bobs.token.unwrap().id;
    refused(ada.get_usage(by_user("bob")).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let of_service = GetUsageRequest { owner_kind: OwnerKind::Service.into(), ..by_user("ada") };
    refused(ada.get_usage(of_service).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    for (mut caller, id) in [
        (ada.clone(), &bob),
        (ada.clone(), &service.token.unwrap().id),
        (reader.clone(), &elsewhere),
        (root.clone(), &unknown_id().to_string()),
    ] {
        refused(caller.get_usage(by_token(id)).await, Code::NotFound, "TOKEN_NOT_FOUND");
    }
    let other = GetUsageRequest { organization_id: "other".to_owned(), ..Default::default() };
    refused(reader.get_usage(other).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
}

#[tokio::test]
async fn usage_of_a_range_that_is_too_long_or_of_contradicting_fields_is_refused() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let at = |seconds: i64| Some(Timestamp { seconds, nanos: 0 });
    let range = |start: i64, step: UsageStep| GetUsageRequest {
        start_time: at(start),
        end_time: at(1_700_000_000 / 86_400 * 86_400),
        step: step.into(),
        ..Default::default()
    };
    let end = 1_700_000_000 / 86_400 * 86_400;
    for (step, length) in [(UsageStep::Hour, HOUR), (UsageStep::Day, 24 * HOUR)] {
        usage(&mut root, range(end - 1000 * length, step)).await;
        let status = refused(
            root.get_usage(range(end - 1000 * length - 1, step)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
        );
        assert!(status.message().contains("1000"), "{}", status.message());
    }
    for wrong in [
        range(end, UsageStep::Hour),
        GetUsageRequest { step: 99, ..Default::default() },
        GetUsageRequest { top_tokens: 101, ..Default::default() },
        GetUsageRequest { top_tokens: -1, ..Default::default() },
        GetUsageRequest { owner_kind: OwnerKind::User.into(), ..Default::default() },
        by_token("x"),
        GetUsageRequest { user_id: "ada".to_owned(), ..by_token(&unknown_id().to_string()) },
        GetUsageRequest { top_tokens: 1, ..by_token(&unknown_id().to_string()) },
        GetUsageRequest { start_time: Some(Timestamp { seconds: 0, nanos: -1 }), ..Default::default() },
    ] {
        let described = format!("{wrong:?}");
        let status = refused(root.get_usage(wrong).await, Code::InvalidArgument, "INVALID_FIELD");
        assert!(!status.message().is_empty(), "{described}");
    }
}

#[tokio::test]
async fn days_are_exact_while_hours_are_added_to_them() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let id = created(&mut root, token_of("ada", OwnerKind::User, &[])).await.token.unwrap().id;
    let tokens = "(SELECT id FROM tokens WHERE organization_id = 'acme' LIMIT 1)";
    // As if these hours were complete for long.
    database.execute("UPDATE usage_rollup SET hour = hour - interval '20 hours'").await;
    database
        .execute(format!(
            "WITH hours AS (
                 INSERT INTO usage_hours (token_id, hour, verifications, verdict, organization_id)
                 SELECT {tokens}, hour + n * interval '1 hour', 1 << n, 1 + n % 2, 'acme'
                 FROM usage_rollup, generate_series(0, 22) AS n RETURNING *
             )
             INSERT INTO usage_totals SELECT organization_id, hour, verifications, verdict FROM hours"
        ))
        .await;
    let day = GetUsageRequest { step: UsageStep::Day.into(), ..by_token(&id) };
    let user = GetUsageRequest { step: UsageStep::Day.into(), top_tokens: 1, ..by_user("ada") };
    let all = GetUsageRequest { user_id: String::new(), ..user.clone() };
    let store = Store::new(database.options(), 2);
    store.open();
    loop {
        let mut whole = Vec::new();
        for query in [&day, &user, &all] {
            let usage = usage(&mut root, query.clone()).await;
            assert_eq!(sum(&usage, Verdict::Valid) + sum(&usage, Verdict::Malformed), (1 << 23) - 1);
            if query.top_tokens > 0 {
                let counts = &usage.top_tokens[0].counts;
                assert_eq!(counts.iter().map(|count| count.verifications).sum::<i64>(), (1 << 23) - 1);
            }
            whole.push(usage.points);
        }
        assert!(whole.windows(2).all(|pair| pair[0] == pair[1]), "{whole:?}");
        if !store.roll_up_usage().await.unwrap() {
            break;
        }
    }
    assert!(database.count("SELECT count(*) FROM usage_days").await > 0);
}

/// Fills the counts of 2000 tokens that were used in each of 500 hours, nine tenths in one organization.
async fn fill(database: &Database) {
    let script = "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
             durable_hash, mac, mac_key_id)
         SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN 'org-' || n ELSE 'big' END, 'user-' || n % 100, 'n', scopes,
             labels, create_time, created_by, durable_hash, mac, mac_key_id
         FROM tokens, generate_series(1, 2000) AS n WHERE user_id = 'ada';
         SELECT maintain_usage(NULL, NULL);
         DO $$ BEGIN FOR day IN 0..30 LOOP
             EXECUTE format('CREATE TABLE IF NOT EXISTS usage_hours_%s PARTITION OF usage_hours FOR VALUES FROM (%L) TO (%L)',
                 to_char(now() AT TIME ZONE 'UTC' - day * interval '1 day', 'YYYYMMDD'),
                 date_trunc('day', now(), 'UTC') - day * interval '1 day',
                 date_trunc('day', now(), 'UTC') - (day - 1) * interval '1 day');
         END LOOP; END $$;
         INSERT INTO usage_hours (token_id, hour, verifications, verdict, organization_id)
         SELECT id, date_trunc('hour', now(), 'UTC') - n * interval '1 hour', 10, 1, organization_id
         FROM tokens, generate_series(0, 499) AS n WHERE user_id LIKE 'user-%';
         INSERT INTO usage_days (token_id, day, verifications, verdict, organization_id)
         SELECT id, day, 10, 1, organization_id
         FROM tokens, generate_series(date_trunc('day', now(), 'UTC') - interval '25 days',
             date_trunc('day', now(), 'UTC') - interval '3 days', interval '1 day') AS day
         WHERE user_id LIKE 'user-%' AND day >= date_trunc('month', now(), 'UTC') - interval '1 month';
         INSERT INTO usage_totals (organization_id, hour, verifications, verdict)
         SELECT organization_id, hour, sum(verifications), verdict FROM usage_hours
         WHERE hour >= date_trunc('month', now(), 'UTC') - interval '1 month' GROUP BY 1, 2, 4;";
    database.fill(script).await;
    database.execute("ANALYZE usage_hours, usage_days, usage_totals, tokens").await;
}

/// Returns the compiled statements that read usage.
fn statements() -> Vec<String> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let queries = std::fs::read_dir(directory).unwrap().map(|entry| {
        let file = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        serde_json::from_str::<serde_json::Value>(&file).unwrap()["query"].as_str().unwrap().to_owned()
    });
    queries.filter(|query| query.contains("usage_") && query.contains("$4::bigint + 1)")).collect()
}

#[tokio::test]
async fn with_a_million_counts_usage_is_read_by_indexes_of_the_partitions_in_range() {
    let replica = Replica::large().await;
    created(&mut replica.root(), ordinary()).await;
    let database = &replica.installation.database;
    fill(database).await;
    assert_eq!(database.count("SELECT count(*) FROM usage_hours").await, 1_000_000);
    let mut connection = database.connect().await;
    let id: String = sqlx::query_scalar("SELECT id::text FROM tokens WHERE organization_id = 'big' LIMIT 1")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let statements = statements();
    assert_eq!(statements.len(), 5, "a token, a user, an organization; their steps and their tokens");
    let prepare = "SET enable_seqscan = off; SET enable_bitmapscan = off";
    sqlx::raw_sql(prepare).execute(&mut connection).await.unwrap();
    for statement in statements {
        let scope = match (statement.contains("token_id = $5"), statement.contains("$7")) {
            (true, _) => format!("'{id}'"),
            (_, true) => "'big', 'user-7', NULL".to_owned(),
            // One of the organizations with few tokens.
            _ => "'org-10'".to_owned(),
        };
        let tokens = match (statement.contains("token_id = $5"), statement.contains("$7")) {
            (true, _) => 1,
            (_, true) => 20,
            _ => 1,
        };
        for (by_day, hours) in [(false, 24), (false, 480), (true, 480)] {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let script =
                    format!("DEALLOCATE ALL; SET plan_cache_mode = {mode}; PREPARE statement AS {statement}");
                sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.unwrap();
                let explain = format!(
                    "EXPLAIN (ANALYZE, BUFFERS, TIMING off, COSTS off) EXECUTE statement (
                     date_trunc('day', now(), 'UTC') + interval '1 day' - {hours} * interval '1 hour',
                     date_trunc('day', now(), 'UTC') + interval '1 day', {by_day}, 1000000, {scope})"
                );
                let lines = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
                let plan: String = lines.iter().map(|line| line.get::<String, _>(0) + "\n").collect();
                assert!(
                    !plan.contains("Seq Scan on usage_hours"),
                    "{by_day} {hours} {mode}\n{statement}\n{plan}"
                );
                assert!(
                    !plan.contains("Seq Scan on usage_days"),
                    "{by_day} {hours} {mode}\n{statement}\n{plan}"
                );
                assert!(!plan.contains("Seq Scan on tokens"), "{by_day} {hours} {mode}\n{statement}\n{plan}");
                let buffers = plan.lines().find(|line| line.contains("Buffers: shared")).unwrap_or_default();
                let shared = buffers.split(',').next().unwrap_or_default();
                let touched = shared.split([' ', ':']).filter_map(|word| word.split_once('='));
                let touched = touched.filter(|(kind, _)| ["hit", "read"].contains(kind));
                let blocks: u64 = touched.map(|(_, number)| number.parse::<u64>().unwrap()).sum();
                // The block of each row and its entry, and the indexes of the partitions, for each token.
                let most = 2 * tokens * hours + tokens * 200 + 1_000;
                assert!(blocks <= most, "{blocks} blocks, {by_day} {hours} {mode}\n{statement}\n{plan}");
            }
        }
    }

    // More than is added up at once is refused, with what fits.
    let long = |top: i32, start: i64| GetUsageRequest {
        organization_id: "big".to_owned(),
        top_tokens: top,
        start_time: Some(Timestamp { seconds: start, nanos: 0 }),
        ..Default::default()
    };
    let now = tokend::clock::now().unix_timestamp();
    let mut root = replica.root();
    let more = "INSERT INTO usage_hours SELECT token_id, hour, 1, 7, 'big' FROM usage_hours
         WHERE organization_id = 'big' LIMIT 101000";
    database.execute(more).await;
    let status =
        refused(root.get_usage(long(1, now - 510 * HOUR)).await, Code::InvalidArgument, "INVALID_FIELD");
    assert!(status.message().contains("choose days"), "{}", status.message());
    assert!(!usage(&mut root, long(0, now - 510 * HOUR)).await.points.is_empty());
    assert_eq!(usage(&mut root, long(1, now - 10 * HOUR)).await.top_tokens.len(), 1);
}
