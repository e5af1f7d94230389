//! Migrations during transactions that hold the locks they need: other statements do not wait
//! behind them for long, and the error names the blocking process.

use sqlx::Executor as _;
use sqlx::migrate::Migrator;
use tokend::secret::Prefix;
use tokend::store::{MigrateError, migrate, plan};

use crate::support::database::Database;
use crate::support::{eventually, in_time};

/// As in a long import.
const HOLD: &str = "BEGIN; DELETE FROM tokens WHERE id = gen_random_uuid()";

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Creates a database without the migrations from 3 on; number 3 blocks writes to `tokens`.
async fn old_database() -> Database {
    let database = Database::empty().await;
    MIGRATIONS.run_to(2, &mut database.connect().await).await.unwrap();
    database
}

/// Waits until a migration waits for `tokens`.
async fn waiting(database: &Database) {
    let asked = "SELECT count(*) FROM pg_locks WHERE relation = 'tokens'::regclass
        AND mode = 'ShareRowExclusiveLock' AND NOT granted";
    eventually("a migration waits", async || (database.count(asked).await > 0).then_some(())).await;
}

#[tokio::test]
async fn a_waiting_migration_blocks_no_writer_and_is_applied_later() {
    let database = old_database().await;
    let mut blocker = database.connect().await;
    blocker.execute(HOLD).await.unwrap();
    let (route, prefix) = (database.connect_settings(), Prefix::default());
    let writing = async {
        for _ in 0..2 {
            waiting(&database).await;
            // It queues behind the migration, which gives up its lock request and retries.
            in_time("a write", database.execute("DELETE FROM tokens WHERE id = gen_random_uuid()")).await;
        }
        blocker.execute("COMMIT").await.unwrap();
    };

    let (migrated, ()) = tokio::join!(migrate(&route, &prefix), writing);

    migrated.unwrap();
    assert!(plan(&database.connect_settings()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_migration_that_gives_up_names_the_lock_holders() {
    let database = old_database().await;
    let mut blocker = database.connect().await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut blocker).await.unwrap();

    blocker.execute(HOLD).await.unwrap();

    let given_up = migrate(&database.connect_settings(), &Prefix::default()).await.unwrap_err();

    assert!(matches!(given_up, MigrateError::Locked { version: 3, .. }), "{given_up:?}");
    assert!(given_up.is_transient());
    let output = given_up.to_string();
    assert!(
        output.contains(&format!("process {pid} ")) && output.contains("idle in transaction"),
        "{output}"
    );
    // The migration can be run later.
    blocker.execute("COMMIT").await.unwrap();
    migrate(&database.connect_settings(), &Prefix::default()).await.unwrap();
}
