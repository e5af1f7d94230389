//! Applying migrations beside traffic. Whoever waits for a lock on a table keeps all others waiting who come later, so
//! a migration waits briefly, lets the others go on, and tries again; at last it says who is in its way. Called by
//! `migrate` alone.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};

use super::lock_holders::holders;
use super::migrate_error;

/// How long a migration waits for a lock: longer than a second, after which autovacuum gives way to it, and shorter
/// than calls wait.
const WAIT: Duration = Duration::from_secs(2);

/// How long others then go on.
const PAUSE: Duration = Duration::from_secs(2);

/// How often it is tried.
const TRIES: u32 = 8;

/// Applies what is lacking, as the only one that does.
pub(super) async fn apply(
    mut migrator: Migrator,
    connection: &mut PgConnection,
) -> Result<(), migrate_error::MigrateError> {
    // By ourselves: for one's turn among migrators one waits as long as it takes.
    connection.lock().await.map_err(failed)?;
    migrator.set_locking(false);
    sqlx::query!("SELECT set_config('lock_timeout', $1, false) AS timeout", WAIT.as_millis().to_string())
        .fetch_one(&mut *connection)
        .await?;
    let mut tries = 0;
    loop {
        let Err(error) = migrator.run(&mut *connection).await else { return Ok(()) };
        let Some(version) = locked_out(&error) else { return Err(failed(error)) };
        let holders = holders(connection, version).await?;
        tries += 1;
        if tries == TRIES {
            return Err(migrate_error::MigrateError::Locked { version, holders });
        }
        tracing::warn!(migration = version, %holders, "a migration does not get its lock; others go first");
        tokio::time::sleep(PAUSE).await;
    }
}

fn failed(error: MigrateError) -> migrate_error::MigrateError {
    match error {
        MigrateError::Execute(error) => error.into(),
        error => migrate_error::MigrateError::Migration(error),
    }
}

/// Returns which migration has not got a lock in time, if that is what went wrong.
fn locked_out(error: &MigrateError) -> Option<i64> {
    let MigrateError::ExecuteMigration(sqlx::Error::Database(error), version) = error else { return None };
    // 55P03 lock not available.
    (error.code()? == "55P03").then_some(*version)
}
