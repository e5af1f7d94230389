//! Applies migrations while tokend serves traffic. A migration that waits for a table lock blocks all
//! later requests for it, so it waits briefly, lets them proceed, and retries; finally it reports who
//! holds the lock. Called by `migrate` alone.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};

use super::error;
use super::lock_holders::holders;

/// How long a migration waits for a lock: longer than the second after which autovacuum yields, and
/// shorter than calls wait.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long other lock requests then proceed.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The maximum number of attempts.
const MAX_ATTEMPTS: u32 = 8;

/// Applies the missing migrations, one process at a time.
pub(super) async fn apply(
    mut migrator: Migrator,
    connection: &mut PgConnection,
) -> Result<(), error::MigrateError> {
    // tokend takes the migrators' lock itself, before it sets `lock_timeout`: for that lock there is no
    // limit.
    connection.lock().await.map_err(failed)?;
    migrator.set_locking(false);
    sqlx::query!(
        "SELECT set_config('lock_timeout', $1, false) AS timeout",
        LOCK_TIMEOUT.as_millis().to_string()
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut tries = 0;
    loop {
        let Err(error) = migrator.run(&mut *connection).await else { return Ok(()) };
        let Some(version) = locked_out(&error) else { return Err(failed(error)) };
        let holders = holders(connection, version).await?;
        tries += 1;
        if tries == MAX_ATTEMPTS {
            return Err(error::MigrateError::Locked { version, holders });
        }
        tracing::warn!(migration = version, %holders, "a migration cannot get its lock yet; other \
             transactions go first");
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

fn failed(error: MigrateError) -> error::MigrateError {
    match error {
        MigrateError::Execute(error) => error.into(),
        error => error::MigrateError::Migration(error),
    }
}

/// Returns the version of the migration that did not get a lock in time, if that was the failure.
fn locked_out(error: &MigrateError) -> Option<i64> {
    let MigrateError::ExecuteMigration(sqlx::Error::Database(error), version) = error else { return None };
    // 55P03 lock not available.
    (error.code()? == "55P03").then_some(*version)
}
