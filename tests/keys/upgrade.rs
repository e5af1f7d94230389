//! Upgrades: each migration does what `tokend migrate --plan` says, and a database at an older
//! migration keeps its rows and its tokens.

use std::collections::BTreeMap;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{Acquire as _, AssertSqlSafe, Executor as _, PgConnection};
use tokend::api::proto::{ListTokensRequest, Verdict};
use tokend::secret::Prefix;
use tokend::store::{LockMode, Planned, TableWork, migrate, plan};

use crate::support::client::{created, ordinary, verified};
use crate::support::database::Database;
use crate::support::replica::Installation;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The state of a table within a transaction.
#[derive(sqlx::FromRow)]
struct TableState {
    name: String,
    file: i64,
    newest_index: i64,
    rows_read: i64,
    /// The strongest of this transaction's locks on it.
    lock: Option<String>,
}

/// Returns the state of every table.
async fn tables(connection: &mut PgConnection) -> Vec<TableState> {
    sqlx::query_as(
        "SELECT c.relname::text AS name, pg_relation_filenode(c.oid)::bigint AS file,
             coalesce((SELECT max(indexrelid) FROM pg_index WHERE indrelid = c.oid), 0)::bigint AS newest_index,
             pg_stat_get_xact_tuples_returned(c.oid) AS rows_read,
             (SELECT mode FROM pg_locks WHERE relation = c.oid AND pid = pg_backend_pid() AND mode IN
                 ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
              ORDER BY array_position(ARRAY['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock',
                  'ShareLock'], mode) LIMIT 1) AS lock
         FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Applies a migration and returns the lock and the work on each existing table.
async fn observe(connection: &mut PgConnection, migration: &Migration) -> Vec<(String, String, String)> {
    let mut transaction = connection.begin().await.unwrap();
    let before: BTreeMap<_, _> =
        tables(&mut transaction).await.into_iter().map(|seen| (seen.name.clone(), seen)).collect();
    transaction.execute(migration.sql.clone()).await.unwrap();
    let mut observed = Vec::new();
    for after in tables(&mut transaction).await {
        let (Some(before), Some(lock)) = (before.get(&after.name), after.lock) else { continue };
        let work = if after.file != before.file {
            TableWork::Rewrites
        } else if after.newest_index > before.newest_index {
            TableWork::Indexes
        } else if after.rows_read > before.rows_read {
            TableWork::Reads
        } else {
            TableWork::None
        };
        let mode = match &*lock {
            "ShareLock" => LockMode::Share,
            "ShareRowExclusiveLock" => LockMode::ShareRowExclusive,
            "AccessExclusiveLock" => LockMode::AccessExclusive,
            other => panic!("{other} is not in the plan's words"),
        };
        observed.push((after.name, mode.to_string(), work.to_string()));
    }
    transaction.commit().await.unwrap();
    observed
}

/// Inserts a row into tables without any, so that reading all rows reads something.
const ROWS: [(i64, &str); 5] = [
    (
        2,
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
             durable_hash, mac, mac_key_id)
         VALUES (gen_random_uuid(), 'o', 'u', 'n', '{}', '{}', now(), 'bootstrap', decode(repeat('00', 56), 'hex'), sha256(''),
             '\\x0000000000000000')",
    ),
    (3, "UPDATE tokens SET name = 'm'"),
    (
        4,
        "INSERT INTO token_events (kind, token_id, organization_id, user_id, actor, changes)
         SELECT 'created', id, organization_id, user_id, created_by, '[]' FROM tokens",
    ),
    (6, "INSERT INTO policies (organization_id) VALUES ('o')"),
    (
        8,
        "INSERT INTO audit_seals (sequence, first_id, last_id, events, events_hash, previous, seal_time, key_id, seal)
         VALUES (1, 1, 1, 1, sha256(''), sha256(''), now(), '\\x0000000000000000', sha256(''))",
    ),
];

#[tokio::test]
async fn the_plan_lists_the_locks_of_each_migration() {
    let database = Database::empty().await;
    let planned = plan(&database.connect_settings()).await.unwrap();
    assert_eq!(planned.len(), MIGRATIONS.iter().count());
    let mut connection = database.connect().await;

    for (migration, planned) in MIGRATIONS.iter().zip(planned) {
        let Planned { version, locks, .. } = planned;
        assert_eq!(version, migration.version);
        let declared: Vec<_> = locks
            .iter()
            .map(|lock| (lock.table.to_owned(), lock.mode.to_string(), lock.work.to_string()))
            .collect();
        let observed = observe(&mut connection, migration).await;
        assert_eq!(observed, declared, "migration {version}");
        for (_, row) in ROWS.iter().filter(|(behind, _)| *behind == version) {
            connection.execute(*row).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_database_at_an_older_migration_keeps_its_rows_and_its_tokens() {
    let now = Installation::new().await;
    let replica = now.serve(now.config()).await;
    let made = created(&mut replica.root(), ordinary()).await;
    let old = Database::empty().await;
    MIGRATIONS.run_to(4, &mut old.connect().await).await.unwrap();
    for table in ["installation", "tokens", "token_events"] {
        copy(&now.database, &old, table).await;
    }
    old.execute("SELECT setval('token_events_id_seq', max(id)) FROM token_events").await;
    let planned: Vec<_> =
        plan(&old.connect_settings()).await.unwrap().iter().map(|planned| planned.version).collect();
    assert_eq!(planned.first(), Some(&5));

    migrate(&old.connect_settings(), &Prefix::default()).await.unwrap();

    assert!(plan(&old.connect_settings()).await.unwrap().is_empty());
    let upgraded = Installation { database: old, ..now };
    let replica = upgraded.serve(upgraded.config()).await;
    let mut root = replica.root();
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);
    let listed = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    let mut kept = made.token.unwrap();
    let found = listed.into_iter().find(|token| token.id == kept.id).unwrap();
    kept.last_use_time = found.last_use_time;
    assert_eq!(found, kept);
    assert_eq!(upgraded.database.count("SELECT count(*) FROM token_events WHERE kind = 'created'").await, 2);
}

/// Copies a table's rows into a table with a subset of its columns; a trigger draws the revisions again.
async fn copy(from: &Database, to: &Database, table: &str) {
    let asked = format!("SELECT json_agg(to_jsonb(t) - 'revision')::text FROM {table} t");
    let rows: String =
        sqlx::query_scalar(AssertSqlSafe(asked)).fetch_one(&mut from.connect().await).await.unwrap();
    let put = format!(
        "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)"
    );
    let put = sqlx::query(AssertSqlSafe(put)).bind(rows);
    put.execute(&mut to.connect().await).await.unwrap();
}
