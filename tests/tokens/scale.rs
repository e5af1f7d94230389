//! Listing among a million tokens: always by an index, in steps of the same cost from the first
//! page to the last.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tokend::api::proto::ListTokensRequest;

use crate::support::client::{created, ordinary};
use crate::support::database::Database;
use crate::support::replica::{Installation, Replica};

const MILLION: usize = 1_000_000;

/// Fills a database with tokens: nine tenths in one organization, of so many users, half of them
/// without expiration, a fifth expired, a hundredth revoked, a tenth used.
async fn fill(database: &Database, tokens: usize, users: usize) {
    let script = format!(
        "INSERT INTO plans (organization_id, name, updated_by, update_time) VALUES ('big', 'free', 'test', now());
         INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
             expire_time, revoke_time, revoke_reason, durable_hash, mac, mac_key_id, plan)
         SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN 'org-' || n % 1000 ELSE 'big' END,
             'user-' || n % {users}, 'token ' || n, scopes, labels, create_time - n * interval '1 s', created_by,
             CASE n % 10 WHEN 1 THEN create_time - n * interval '500 ms' WHEN 2 THEN create_time - n * interval '1 ms'
                 WHEN 3 THEN create_time + n * interval '1 s' WHEN 4 THEN create_time + n * interval '1 s'
                 WHEN 5 THEN create_time + interval '1 day' END,
             CASE WHEN n % 100 = 7 THEN create_time END, CASE WHEN n % 100 = 7 THEN '' END,
             durable_hash, mac, mac_key_id, CASE WHEN n % 10 > 0 THEN 'free' END
         FROM tokens, generate_series(1, {tokens}) AS n WHERE user_id = 'ada';
         INSERT INTO token_uses SELECT id, create_time FROM tokens WHERE name LIKE '%3'"
    );
    database.fill(&script).await;
    sqlx::raw_sql("ANALYZE tokens, token_uses").execute(&mut database.connect().await).await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM tokens").await, i64::try_from(tokens).unwrap() + 2);
}

/// Returns the compiled statements that contain these words.
fn statements(words: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let queries = std::fs::read_dir(directory).unwrap().map(|entry| {
        let file = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let query: serde_json::Value = serde_json::from_str(&file).unwrap();
        query["query"].as_str().unwrap().to_owned()
    });
    queries.filter(|query| query.contains(words)).collect()
}

/// Returns the statements that walk a listing.
fn walks() -> Vec<String> {
    let walks = statements("AS walk");
    assert_eq!(walks.len(), 8, "four owners in two orders");
    walks
}

/// The parameters of one call, as a statement's arguments.
#[derive(Debug, Clone, Copy)]
struct Call {
    position: (&'static str, &'static str),
    states: &'static str,
    filters: &'static str,
}

const START: (&str, &str) = ("", "");
const ALL: &str = "true, true, true";

impl Call {
    fn arguments(self, walk: &str) -> String {
        let by_creation = walk.contains("ORDER BY create_time DESC");
        let start = if by_creation {
            ("9999-12-31", "ffffffff-ffff-ffff-ffff-ffffffffffff")
        } else {
            ("0001-01-01", "00000000-0000-0000-0000-000000000000")
        };
        let (time, id) = if self.position == START { start } else { self.position };
        let owner = match (walk.contains("organization_id = $17"), walk.contains("user_id = $1")) {
            (true, true) => ", 'big', 'user-7'",
            (true, false) => ", 'big'",
            (false, true) => ", 'user-7'",
            (false, false) => "",
        };
        let disabled = self.states == ALL;
        format!(
            "'{time}', '{id}', {}, {}, 51, {disabled}, now(), NULL, NULL, false{owner}",
            self.states, self.filters
        )
    }
}

/// Explains a call with a plan of this `mode`: for its arguments, or generic.
async fn explain(connection: &mut PgConnection, walk: &str, call: Call, mode: &str, options: &str) -> String {
    explain_with(connection, walk, &call.arguments(walk), mode, options).await
}

async fn explain_with(
    connection: &mut PgConnection,
    statement: &str,
    arguments: &str,
    mode: &str,
    options: &str,
) -> String {
    let script = format!("DEALLOCATE ALL; SET plan_cache_mode = {mode}; PREPARE statement AS {statement}");
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *connection).await.unwrap();
    let explain = format!("EXPLAIN ({options}) EXECUTE statement ({arguments})");
    let lines = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    lines.iter().map(|line| line.get::<String, _>(0) + "\n").collect()
}

/// Returns the number of blocks that a call accesses.
async fn blocks(connection: &mut PgConnection, statement: &str, arguments: &str) -> u64 {
    let options = "ANALYZE, BUFFERS, TIMING off";
    let plan = explain_with(connection, statement, arguments, "force_custom_plan", options).await;
    // The first line of buffers is the total of the statement.
    let buffers = plan.lines().find(|line| line.contains("Buffers: shared")).unwrap_or_default();
    let words = buffers.split([' ', ':']).filter_map(|word| word.split_once('='));
    let touched = words.filter(|(kind, _)| ["hit", "read"].contains(kind));
    touched.map(|(_, number)| number.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn with_a_million_tokens_every_listing_scans_an_index_and_all_pages_cost_the_same() {
    let replica = Replica::large().await;
    created(&mut replica.root(), ordinary()).await;
    let database = &replica.installation.database;
    fill(database, MILLION, 10).await;
    let mut connection = database.connect().await;
    let none = "'0001-01-01', NULL, NULL, NULL, NULL";
    let calls = [
        Call { position: START, states: ALL, filters: none },
        Call { position: START, states: "true, false, false", filters: none },
        Call { position: START, states: "false, true, false", filters: none },
        Call { position: START, states: "false, false, true", filters: none },
        Call { position: START, states: ALL, filters: "'0001-01-01', NULL, '2030-01-01', NULL, NULL" },
        Call { position: START, states: ALL, filters: "'2001-01-01', now(), now(), 'token 9', now()" },
    ];

    let compare = statements("t.revision").pop().unwrap();
    let few = "'{00000000-0000-7000-8000-000000000001}', ''";
    let plan = explain_with(&mut connection, &compare, few, "force_generic_plan", "COSTS off").await;
    assert!(plan.contains("Index Only Scan using tokens_pkey"), "a row is read\n{plan}");

    let of_plan = statements("has_ended!").pop().unwrap();
    let last = "'ffffffff-0000-0000-0000-000000000000'";
    for after in ["'00000000-0000-0000-0000-000000000000'", last] {
        let page = format!("'big', 'free', {after}, now(), 500");
        let plan = explain_with(&mut connection, &of_plan, &page, "force_generic_plan", "COSTS off").await;
        assert!(plan.contains("tokens_plan_idx") && !plan.contains("Seq Scan"), "{plan}");
        sqlx::raw_sql("SET enable_bitmapscan = off").execute(&mut connection).await.unwrap();
        let touched = blocks(&mut connection, &of_plan, &page).await;
        assert!(touched <= 500 * 3, "{touched} blocks for a page of a plan's tokens after {after}");
        sqlx::raw_sql("RESET enable_bitmapscan").execute(&mut connection).await.unwrap();
    }
    let deletion = statements("DELETE FROM plans p").pop().unwrap();
    let plan =
        explain_with(&mut connection, &deletion, "'big', 'free'", "force_generic_plan", "COSTS off").await;
    assert!(plan.contains("tokens_plan_idx") && !plan.contains("Seq Scan on tokens"), "{plan}");

    for walk in walks() {
        for call in calls {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let plan = explain(&mut connection, &walk, call, mode, "COSTS off").await;
                assert!(plan.contains("using tokens_"), "{call:?} {mode}\n{plan}");
                assert!(!plan.contains("Seq Scan"), "{call:?} {mode}\n{plan}");
                assert!(!plan.contains("Sort"), "the walk could not stop early: {call:?} {mode}\n{plan}");
            }
        }
        let [first, middle, last] = if walk.contains("ORDER BY create_time DESC") {
            [START, ("2026-01-01", "0"), ("2001-01-01", "0")]
        } else {
            [START, ("infinity", "00000000-0000-0000-0000-000000000000"), ("infinity", "f")]
        };
        let mut cost = async |(time, id): (&'static str, &'static str)| {
            let id = match id {
                "0" => "00000000-0000-0000-0000-000000000000",
                "f" => "fff00000-0000-0000-0000-000000000000",
                other => other,
            };
            let call = Call { position: (time, id), states: ALL, filters: none };
            blocks(&mut connection, &walk, &call.arguments(&walk)).await
        };
        // 51 rows: the block of each, the lookup of its last use through another index, and dead
        // rows of updates that are not vacuumed yet.
        for position in [first, middle, last] {
            let touched = cost(position).await;
            assert!(touched <= 51 * 20, "{touched} blocks for a page at {position:?} of\n{walk}");
        }
        // A call that finds nothing reads the blocks of 10,000 rows, not those of a million.
        let vain =
            Call { position: START, states: ALL, filters: "'0001-01-01', NULL, NULL, 'no such', NULL" };
        let touched = blocks(&mut connection, &walk, &vain.arguments(&walk)).await;
        assert!(touched <= 10_000 * 2, "{touched} blocks for a call in vain");
    }
}

/// Fills the audit log, an event a second: nine tenths in one organization, of ten users; one user with few, old events
/// by another actor.
async fn fill_log(database: &Database, events: usize) {
    let mut connection = database.connect().await;
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE tablename = 'token_events' AND indexname <> 'token_events_pkey'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut script = String::new();
    for (name, _) in &indexes {
        write!(script, "DROP INDEX {name};").unwrap();
    }
    write!(
        script,
        "INSERT INTO token_events (event_time, kind, token_id, organization_id, user_id, actor, changes)
         SELECT now() - ({events} - n) * interval '1 s', 'updated',
             ('00000000-0000-7000-8000-' || lpad(to_hex(n % 1000), 12, '0'))::uuid,
             CASE WHEN n % 10 = 0 THEN 'org-' || n % 1000 ELSE 'big' END,
             CASE WHEN n % 100000 = 7 AND n < 300000 THEN 'seldom' ELSE 'user-' || n % 10 END,
             CASE WHEN n % 100000 = 7 AND n < 300000 THEN 'bootstrap' ELSE 'tokend' END, '[]'
         FROM generate_series(1, {events}) AS n;"
    )
    .unwrap();
    for (_, definition) in &indexes {
        write!(script, "{definition};").unwrap();
    }
    script.push_str("VACUUM ANALYZE token_events");
    let (script, vacuum) = script.rsplit_once(';').unwrap();
    for part in [script, vacuum] {
        sqlx::raw_sql(AssertSqlSafe(part.to_owned())).execute(&mut connection).await.unwrap();
    }
}

/// Returns the index that a reading of the log walks, and whom it asks for: somebody with many events, with few, and with
/// none.
fn walked(reading: &str) -> (&'static str, [String; 3]) {
    let owners = |of: &dyn Fn(&str) -> String| ["user-7", "seldom", "nobody"].map(of);
    if reading.contains("(token_id, id)") {
        let token =
            |number: u16| format!(", '00000000-0000-7000-8000-{number:012x}', 'big', 'user-{}'", number % 10);
        return ("token_events_token_idx", [token(7), token(8), token(5000)]);
    }
    if reading.contains("(organization_id, user_id, id)") {
        return ("token_events_user_idx", owners(&|user| format!(", 'big', '{user}'")));
    }
    if reading.contains("(organization_id, id)") {
        let organization = |name| format!(", '{name}'");
        return ("token_events_organization_idx", ["big", "org-10", "org-11"].map(organization));
    }
    if reading.contains("(user_id, id)") {
        return ("token_events_any_user_idx", owners(&|user| format!(", '{user}'")));
    }
    let none = [const { String::new() }; 3];
    if reading.contains("(actor COLLATE") {
        ("token_events_actor_idx", none)
    } else {
        ("token_events_pkey", none)
    }
}

#[tokio::test]
async fn with_a_million_events_every_filter_scans_an_index_within_its_bound() {
    const EVERYTHING: &str = "9223372036854775807, 51, 0, NULL, NULL";
    let database = Installation::large().await.database;
    fill_log(&database, MILLION).await;
    let mut connection = database.connect().await;
    let readings = statements(") AS log");
    assert_eq!(readings.len(), 6, "of a token, an organization, its user, a user, an actor, and all");
    // What the server tells the planner in its own transaction.
    let settings = statements("enable_bitmapscan").pop().unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {settings}"))).execute(&mut connection).await.unwrap();
    for reading in &readings {
        let (index, owners) = walked(reading);
        for (owner, actor) in owners.iter().zip(["'tokend'", "'bootstrap'", "'cert:nobody'"]) {
            let actor = if index == "token_events_actor_idx" { actor } else { "NULL" };
            let arguments = format!("{EVERYTHING}, {actor}, NULL, NULL{owner}");
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let plan = explain_with(&mut connection, reading, &arguments, mode, "COSTS off").await;
                assert!(plan.contains(&format!("using {index} on")), "{mode} {arguments}\n{plan}");
                let more = plan.contains("Seq Scan") || plan.contains("Sort");
                assert!(!more, "the walk could not stop early: {mode} {arguments}\n{plan}");
            }
            // 51 rows, each in a block of its own, and the way to them.
            let touched = blocks(&mut connection, reading, &arguments).await;
            assert!(touched <= 51 * 2, "{touched} blocks for {arguments} of\n{reading}");
        }
        // A call that finds nothing touches what 10,000 rows lie in, not what a million do.
        let vain =
            format!("9223372036854775807, 51, 0, NULL, '1971-01-01', 'tokend', NULL, NULL{}", owners[0]);
        let touched = blocks(&mut connection, reading, &vain).await;
        assert!(touched <= 10_000 * 2, "{touched} blocks for a call in vain of\n{reading}");
    }

    let range = statements("AS behind").pop().unwrap();
    for times in [
        "now() - interval '5 days', now() - interval '4 days'",
        "'0001-01-01', '1971-01-01'",
        "'2999-01-01', '9999-12-31'",
    ] {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = explain_with(&mut connection, &range, times, mode, "COSTS off").await;
            assert!(!plan.contains("Seq Scan") && !plan.contains("Sort"), "{mode} {times}\n{plan}");
        }
        let touched = blocks(&mut connection, &range, times).await;
        assert!(touched <= 16, "{touched} blocks for the range {times}");
    }
}

#[tokio::test]
async fn with_a_million_tokens_every_page_of_users_costs_the_same() {
    let replica = Replica::large().await;
    created(&mut replica.root(), ordinary()).await;
    let database = &replica.installation.database;
    fill(database, MILLION, 100_000).await;
    let mut connection = database.connect().await;
    let list = statements("FROM listed").pop().unwrap();
    // What the server tells the planner in its own transaction.
    let settings = statements("enable_bitmapscan").pop().unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {settings}"))).execute(&mut connection).await.unwrap();
    for start in ["'big', '', ''", "'big', 'user-5', 'user'", "'big', 'user-99998', 'user'", "'', '', ''"] {
        for filters in
            ["'big', NULL, false", "NULL, NULL, false", "NULL, 'service', false", "NULL, NULL, true"]
        {
            let arguments = format!("{start}, {filters}, 51, now(), 10000");
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let plan = explain_with(&mut connection, &list, &arguments, mode, "COSTS off").await;
                assert!(!plan.contains("Seq Scan on tokens"), "{mode} {arguments}\n{plan}");
                // Of disabled ones alone no token is looked for.
                let walks = plan.contains("Index Only Scan using tokens_owner_idx");
                assert!(walks || filters.ends_with("true"), "{mode} {arguments}\n{plan}");
            }
            // Ten tokens a user, each in a block of its own, with its last use; a kind that nobody has is looked for
            // among as many users as a page counts tokens.
            let most = if filters.contains("service") { 10_000 * 10 } else { 51 * 100 };
            let touched = blocks(&mut connection, &list, &arguments).await;
            assert!(touched <= most, "{touched} blocks for {arguments}");
        }
    }
}

/// Pages through a listing of everything, and returns the number of calls.
async fn page_to_the_end(replica: &Replica, order_by: &str, tokens: usize) -> usize {
    let mut root = replica.root();
    let (mut shown, mut calls, mut page_token) = (HashSet::new(), 0, String::new());
    loop {
        let order_by = order_by.to_owned();
        let request = ListTokensRequest { page_size: 1000, page_token, order_by, ..Default::default() };
        let page = root.list_tokens(request).await.unwrap().into_inner();
        calls += 1;
        for token in page.tokens {
            assert!(shown.insert(token.id), "shown twice");
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(shown.len(), tokens);
    calls
}

#[tokio::test]
async fn twenty_thousand_tokens_are_listed_completely() {
    let replica = Replica::start().await;
    created(&mut replica.root(), ordinary()).await;
    fill(&replica.installation.database, 20_000, 10).await;

    for order_by in ["create_time desc", "expire_time"] {
        assert_eq!(page_to_the_end(&replica, order_by, 20_002).await, 21);
    }
}

#[tokio::test]
#[ignore = "takes a minute or two: cargo test --test api -- --ignored a_million"]
async fn a_million_tokens_are_listed_completely() {
    let replica = Replica::large().await;
    created(&mut replica.root(), ordinary()).await;
    fill(&replica.installation.database, MILLION, 10).await;

    for order_by in ["create_time desc", "expire_time"] {
        assert_eq!(page_to_the_end(&replica, order_by, MILLION + 2).await, 1001);
    }
}
