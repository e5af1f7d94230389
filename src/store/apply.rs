//! Applying migrations beside traffic. Whoever waits for a lock on a table keeps all others waiting who come later, so
//! a migration waits briefly, lets the others go on, and tries again; at last it says who is in its way. Called by
//! `migrate` alone.

use std::fmt;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};

use super::migrations;
use super::plan::locks;

/// How long a migration waits for a lock: longer than a second, after which autovacuum gives way to it, and shorter
/// than calls wait.
const WAIT: Duration = Duration::from_secs(2);

/// How long others then go on.
const PAUSE: Duration = Duration::from_secs(2);

/// How often it is tried.
const TRIES: u32 = 8;

/// Who holds locks that a migration needs, longest first; some of them.
#[derive(Debug, Default)]
pub struct Holders(Vec<Holder>);

#[derive(Debug)]
struct Holder {
    /// `None`: a prepared transaction, which has no process.
    pid: Option<i32>,
    role: Option<String>,
    program: Option<String>,
    state: Option<String>,
    seconds: Option<i64>,
}

/// Applies what is lacking, as the only one that does.
pub(super) async fn apply(
    mut migrator: Migrator,
    connection: &mut PgConnection,
) -> Result<(), migrations::MigrateError> {
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
            return Err(migrations::MigrateError::Locked { version, holders });
        }
        tracing::warn!(migration = version, %holders, "a migration does not get its lock; others go first");
        tokio::time::sleep(PAUSE).await;
    }
}

fn failed(error: MigrateError) -> migrations::MigrateError {
    match error {
        MigrateError::Execute(error) => error.into(),
        error => migrations::MigrateError::Migration(error),
    }
}

/// Returns which migration has not got a lock in time, if that is what went wrong.
fn locked_out(error: &MigrateError) -> Option<i64> {
    let MigrateError::ExecuteMigration(sqlx::Error::Database(error), version) = error else { return None };
    // 55P03 lock not available.
    (error.code()? == "55P03").then_some(*version)
}

async fn holders(connection: &mut PgConnection, version: i64) -> Result<Holders, sqlx::Error> {
    let (mut tables, mut modes) = (Vec::new(), Vec::new());
    for lock in locks(version) {
        for mode in lock.mode.conflicts() {
            tables.push(lock.table.to_owned());
            modes.push((*mode).to_owned());
        }
    }
    let holders = sqlx::query_as!(
        Holder,
        r#"SELECT l.pid, min(a.usename::text) AS role, min(a.application_name) AS program, min(a.state) AS state,
               max(extract(epoch FROM clock_timestamp() - a.xact_start))::bigint AS seconds
           FROM unnest($1::text[], $2::text[]) AS needed (table_name, mode)
           JOIN pg_locks l ON l.relation = to_regclass(needed.table_name) AND l.mode = needed.mode AND l.granted
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           LEFT JOIN pg_stat_activity a ON a.pid = l.pid
           WHERE l.pid IS DISTINCT FROM pg_backend_pid()
           GROUP BY l.pid ORDER BY min(a.xact_start) LIMIT 5"#,
        &tables,
        &modes
    );
    Ok(Holders(holders.fetch_all(connection).await?))
}

impl fmt::Display for Holders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("transactions that have ended meanwhile");
        }
        for (index, holder) in self.0.iter().enumerate() {
            formatter.write_str(if index > 0 { ", " } else { "" })?;
            let Some(pid) = holder.pid else {
                formatter.write_str("a prepared transaction (see pg_prepared_xacts)")?;
                continue;
            };
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (role, program, state) = (text(&holder.role), text(&holder.program), text(&holder.state));
            let seconds = holder.seconds.unwrap_or(0);
            write!(
                formatter,
                "process {pid} (role '{role}', program '{program}', {state}, in a transaction for {seconds} s)"
            )?;
        }
        Ok(())
    }
}
