//! Rows that tokend never writes: a newer build or an operator has stored them, past every
//! constraint. Such a row affects only itself: its token is not known (never VALID, never
//! `NOT_FOUND`), while tokens read, listed or watched with it get their usual responses, and
//! nothing needs a restart.

use std::time::Duration;

use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    CheckPolicyRequest, Consistency, ListTokenEventsRequest, ListTokensRequest, Policy, RevokeTokenRequest,
    RotateTokenRequest, Verdict, VerifyRequest, WatchTokensRequest,
};
use tonic::Code;

use super::setup::{Made, caught_up, made, uuid};
use crate::support::client::{Client, leaver, question, renaming, revocation, rotated, rotation, verified};
use crate::support::database::Database;
use crate::support::replica::{Installation, Replica, SERVICE};
use crate::support::status::refused;
use crate::support::{eventually, http, in_time};
use tonic_health::ServingStatus;

/// Each is a value that a column of `tokens` may hold without its constraints, and that tokend
/// cannot read.
const POISONS: &[(&str, &str)] = &[
    ("organization_id", "''"),
    ("organization_id", "NULL"),
    ("organization_id", "repeat('x', 201)"),
    ("user_id", "''"),
    ("user_id", "NULL"),
    ("user_id", "E'a\\nb'"),
    ("name", "''"),
    ("name", "NULL"),
    ("name", "repeat('x', 101)"),
    ("scopes", "ARRAY['No Scope']"),
    ("scopes", "ARRAY['tokend:from-a-newer-build']"),
    ("scopes", "ARRAY[NULL]::text[]"),
    ("scopes", "ARRAY[['a', 'b'], ['c', 'd']]"),
    ("scopes", "NULL"),
    ("labels", "'{\"a\": 1}'"),
    ("labels", "'[]'"),
    ("labels", "'{\"\": \"x\"}'"),
    ("labels", "NULL"),
    ("allowed_cidrs", "NULL"),
    ("allowed_cidrs", "ARRAY[NULL]::cidr[]"),
    ("create_time", "'20000-01-01'"),
    ("create_time", "'infinity'"),
    ("create_time", "'-infinity'"),
    ("create_time", "'4000-01-01 BC'"),
    ("create_time", "NULL"),
    ("created_by", "''"),
    ("created_by", "NULL"),
    ("expire_time", "'20000-01-01'"),
    ("expire_time", "'294276-01-01'"),
    ("expire_time", "'infinity'"),
    ("expire_time", "'-infinity'"),
    ("expire_time", "'4000-01-01 BC'"),
    ("revoke_time", "'20000-01-01'"),
    ("revoke_time", "'infinity'"),
    ("revoke_time", "'-infinity'"),
    ("revoke_reason", "repeat('x', 501)"),
    ("disable_time", "'infinity'"),
    ("disable_time", "'-infinity'"),
    ("user_disable_time", "'infinity'"),
    ("owner_kind", "'robot'"),
    ("owner_kind", "NULL"),
    ("mac", "'\\x00'"),
    ("mac", "NULL"),
    ("mac_key_id", "'\\x00'"),
    ("mac_key_id", "NULL"),
];

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// Drops the constraints that keep such rows out.
fn dropping_constraints(table: &str, key: &str) -> String {
    format!(
        "DO $$
        DECLARE found record;
        BEGIN
            FOR found IN SELECT conname FROM pg_constraint
                WHERE conrelid = '{table}'::regclass AND contype = 'c' LOOP
                EXECUTE format('ALTER TABLE {table} DROP CONSTRAINT %I', found.conname);
            END LOOP;
            FOR found IN SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0
                AND attnotnull AND attidentity = '' AND attname <> '{key}' LOOP
                EXECUTE format('ALTER TABLE {table} ALTER COLUMN %I DROP NOT NULL', found.attname);
            END LOOP;
        END $$"
    )
}

/// Starts a replica on tables without constraints. It purges tokens that ended long ago at this
/// interval; one of the poisoned values is an end before all times.
async fn unconstrained(purges: Duration) -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.retention.interval = purges;
    let replica = installation.serve(config).await;
    for (table, key) in [("tokens", "id"), ("token_changes", "sequence")] {
        replica.installation.database.execute(dropping_constraints(table, key)).await;
    }
    replica
}

/// Returns whether only Verify reads a column: lists and watches then show the token as usual.
fn is_verifier(column: &str) -> bool {
    column.starts_with("mac")
}

async fn poison(database: &Database, token: &Made, column: &str, value: &str) {
    let sql = format!("UPDATE tokens SET {column} = {value} WHERE id = '{}'", uuid(token));
    assert_eq!(database.execute(sql).await, 1, "{column} = {value}");
}

fn full(token: &Made) -> VerifyRequest {
    VerifyRequest { consistency: Consistency::Full.into(), ..question(&token.secret, &[]) }
}

/// Verifies the poisoned token and its neighbours concurrently, so that they are read together.
async fn asked_together(client: &Client, poisoned: &Made, neighbours: &[Made], what: &str) {
    for consistency in [Consistency::Bounded, Consistency::Full] {
        let ask = |token: &Made| {
            let (mut client, question) = (
                client.clone(),
                VerifyRequest { consistency: consistency.into(), ..question(&token.secret, &[]) },
            );
            tokio::spawn(async move { client.verify(question).await })
        };
        let asked: Vec<_> = neighbours.iter().map(ask).collect();
        let refused = ask(poisoned).await.unwrap().expect_err(what);
        assert!(matches!(refused.code(), Code::Internal | Code::Unavailable), "{what}: {refused:?}");
        for asked in asked {
            let answer = asked.await.unwrap();
            assert_eq!(answer.expect(what).into_inner().verdict(), Verdict::Valid, "{what}");
        }
    }
}

async fn listed(root: &mut Client) -> Vec<String> {
    let mut ids = Vec::new();
    for order in ["create_time desc", "expire_time"] {
        let mut page_token = String::new();
        let mut found = Vec::new();
        // A page so small that pages end at omitted rows.
        for _ in 0..200 {
            let request = ListTokensRequest {
                order_by: order.to_owned(),
                page_size: 2,
                page_token,
                ..Default::default()
            };
            let page = root.list_tokens(request).await.unwrap().into_inner();
            found.extend(page.tokens.into_iter().map(|token| token.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(page_token.is_empty(), "listing by {order} does not end");
        found.sort_unstable();
        assert!(ids.is_empty() || ids == found, "{order}: {ids:?} or {found:?}");
        ids = found;
    }
    ids
}

async fn metric(replica: &Replica, name: &str) -> f64 {
    let (_, text) = http::get(replica.http, "/metrics").await;
    text.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test]
async fn unreadable_rows_affect_no_other_verdict_and_no_list() {
    let replica = unconstrained(NEVER).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let before = listed(&mut root).await;
    let mut sound = Vec::new();
    for (column, value) in POISONS {
        let what = format!("{column} = {value}");
        let poisoned = made(&mut root).await;
        let mut neighbours = Vec::new();
        for _ in 0..3 {
            neighbours.push(made(&mut root).await);
        }
        poison(database, &poisoned, column, value).await;
        asked_together(&root, &poisoned, &neighbours, &what).await;
        sound.extend(neighbours.into_iter().map(|made| made.id));
        if is_verifier(column) {
            sound.push(poisoned.id);
        }
    }

    let mut expected = [before, sound].concat();
    expected.sort_unstable();
    assert_eq!(listed(&mut root).await, expected);
    let events = ListTokenEventsRequest { page_size: 1000, ..Default::default() };
    assert!(!root.list_token_events(events).await.unwrap().into_inner().events.is_empty());
    let policy = Policy { most_active_tokens_per_user: 1, ..Default::default() };
    let check = CheckPolicyRequest {
        organization_id: "default".to_owned(),
        policy: Some(policy),
        ..Default::default()
    };
    root.check_policy(check).await.unwrap();
    root.revoke_user_tokens(leaver("ada")).await.unwrap();

    assert!(metric(&replica, "tokend_task_restarts_total").await < 1.0);
    assert!(metric(&replica, "tokend_unreadable_rows_total{table=\"tokens\"}").await >= 1.0);
    assert_eq!(replica.health(SERVICE).await, ServingStatus::Serving);
}

#[tokio::test]
async fn a_family_with_an_unreadable_member_can_be_revoked() {
    let replica = unconstrained(NEVER).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let mut writer = replica.caller("", &["tokend:write"]).await;
    for (index, (column, value)) in POISONS.iter().filter(|(column, _)| !is_verifier(column)).enumerate() {
        let by_secret = index % 2 == 1;
        let what = format!("{column} = {value}, by secret: {by_secret}");
        let first = made(&mut root).await;
        let mut family = vec![first.clone()];
        for _ in 0..2 {
            let old = &family.last().unwrap().id;
            let grace_period = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
            let new = rotated(&mut root, RotateTokenRequest { grace_period, ..rotation(old) }).await;
            family.push(Made { id: new.token.unwrap().id, secret: new.secret });
        }
        poison(database, &family[1], column, value).await;

        // A row that cannot be read may be a root token.
        refused(
            writer.revoke_token(revocation(&first.id, "")).await,
            Code::PermissionDenied,
            "PRIVILEGED_TOKEN",
        );
        let target = if by_secret { Target::Secret(first.secret) } else { Target::TokenId(first.id) };
        let request = RevokeTokenRequest { target: Some(target), ..Default::default() };
        root.revoke_token(request).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));

        let last = verified(&mut root, &family[2].secret, &[]).await;
        assert_eq!(last.verdict(), Verdict::Revoked, "{what}");
        let left =
            format!("SELECT count(*) FROM tokens WHERE id = '{}' AND revoke_time IS NULL", uuid(&family[1]));
        assert_eq!(database.count(left).await, 0, "{what}");
    }
}

#[tokio::test]
async fn an_unreadable_row_silences_no_watcher() {
    let replica = unconstrained(NEVER).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let mut watch = root.watch_tokens(WatchTokensRequest::default()).await.unwrap().into_inner();
    for (column, value) in POISONS.iter().filter(|(column, _)| !is_verifier(column)) {
        let poisoned = made(&mut root).await;
        let neighbour = made(&mut root).await;
        poison(database, &poisoned, column, value).await;
        root.update_token(renaming(&neighbour.id)).await.unwrap();
        let (mut received_poison, mut received_neighbour) = (false, false);
        // A watcher that keeps a copy of the unreadable token must hear of its change, too.
        in_time(&format!("a watcher hears of {column} = {value}, and of what is beside it"), async {
            while !(received_poison && received_neighbour) {
                let message = watch.message().await.unwrap().unwrap();
                for change in message.changes {
                    received_poison |= change.token_id == poisoned.id && change.token.is_none();
                    let renamed = change.token.is_some_and(|token| token.name == "renamed");
                    received_neighbour |= change.token_id == neighbour.id && renamed;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_repaired_row_is_answered_again_without_a_restart() {
    let replica = unconstrained(NEVER).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let token = made(&mut root).await;
    poison(database, &token, "expire_time", "'infinity'").await;
    caught_up(
        &mut root,
        database,
        &Made { id: String::new(), secret: replica.installation.root_secret.clone() },
    )
    .await;
    for _ in 0..20 {
        root.verify(full(&token)).await.unwrap_err();
    }
    poison(database, &token, "expire_time", "NULL").await;
    eventually("the token is VALID", async || {
        let answer = root.verify(question(&token.secret, &[])).await.ok()?.into_inner();
        (answer.verdict() == Verdict::Valid).then_some(())
    })
    .await;
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn unreadable_events_are_left_out_of_the_log() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    database.execute(dropping_constraints("token_events", "id")).await;
    let mut sound = Vec::new();
    let poisons = [
        ("event_time", "'infinity'"),
        ("event_time", "'20000-01-01'"),
        ("event_time", "NULL"),
        ("kind", "'unheard-of'"),
        ("kind", "NULL"),
        ("token_id", "NULL"),
        ("organization_id", "''"),
        ("user_id", "NULL"),
        ("owner_kind", "'robot'"),
        ("actor", "NULL"),
        ("trace_id", "'\\x00'"),
        ("changes", "'{}'"),
        ("changes", "'[{\"field\": 1}]'"),
    ];
    for (column, value) in poisons {
        let (poisoned, neighbour) = (made(&mut root).await, made(&mut root).await);
        let sql =
            format!("UPDATE token_events SET {column} = {value} WHERE token_id = '{}'", uuid(&poisoned));
        assert_eq!(database.execute(sql).await, 1, "{column} = {value}");
        sound.push(neighbour.id);
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    for _ in 0..100 {
        let request = ListTokenEventsRequest { page_size: 1, page_token, ..Default::default() };
        let page = root.list_token_events(request).await.unwrap().into_inner();
        found.extend(page.events.into_iter().map(|event| event.token_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    sound.reverse();
    // At the end: the root token.
    found.pop();
    assert_eq!(found, sound);
}

#[tokio::test]
async fn tokens_whose_event_cannot_be_written_do_not_block_the_purge() {
    let replica = unconstrained(Duration::from_millis(200)).await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let ended = "create_time = now() - interval '500 days', expire_time = now() - interval '450 days'";
    let mut poisoned = Vec::new();
    for (column, value) in [("organization_id", "NULL"), ("user_id", "NULL"), ("user_id", "''")] {
        let token = made(&mut root).await;
        poison(database, &token, column, &format!("{value}, {ended}")).await;
        poisoned.push(token);
    }
    let old = made(&mut root).await;
    database.execute(format!("UPDATE tokens SET {ended} WHERE id = '{}'", uuid(&old))).await;
    let left = format!("SELECT count(*) FROM tokens WHERE id = '{}'", uuid(&old));
    eventually("it is purged", async || (database.count(left.clone()).await == 0).then_some(())).await;
    assert_eq!(poisoned.len(), 3);
    tokio::time::timeout(Duration::from_secs(1), root.verify(question(&poisoned[0].secret, &[])))
        .await
        .unwrap()
        .unwrap_err();
}
