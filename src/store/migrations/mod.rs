//! Brings the schema to what this build needs, and refuses a database that tokend cannot use. Called at
//! the start of `serve` and by `tokend migrate` and `tokend bootstrap`.

use std::collections::HashMap;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::connect_settings::{ConnectSettings, PoolerMode};
use super::pooling::{Session, StatementExecutor};
use super::{STORE_DEADLINE, StoreError};
use crate::secret::Prefix;

mod apply;
mod error;
mod fitness;
mod lock_holders;
mod plan;

use self::apply::apply;
pub use self::error::MigrateError;
pub use self::lock_holders::Holders;
use self::plan::locks;
pub use self::plan::{LockMode, TableLock, TableWork};

/// The oldest supported Postgres, as its `server_version_num`.
const OLDEST_POSTGRES: i32 = 140_000;

/// Applies the migrations that the database lacks, and records the prefix if it has none. Any number of
/// processes may do so at once: a lock serializes them. If another transaction holds a lock that a
/// migration needs, it waits briefly and yields, up to eight times, and then fails. A database that a
/// newer build has migrated further is accepted.
///
/// # Errors
/// [`MigrateError`]; migrations applied before the failing one remain.
pub async fn migrate(settings: &ConnectSettings, prefix: &Prefix) -> Result<(), MigrateError> {
    // The migrator holds a lock of its session.
    if settings.pooling == PoolerMode::Transaction {
        return Err(MigrateError::NoSession);
    }
    let complete = in_time(async {
        check_sessions(settings).await?;
        let mut session = connect(settings).await?;
        fitness::check_writable(&mut session).await?;
        fitness::check_schema(&mut session).await?;
        if are_complete(&applied(&mut session).await?) {
            return Ok(Some(session));
        }
        session.close().await?;
        Ok(None)
    })
    .await?;
    let mut session = if let Some(session) = complete {
        session
    } else {
        // Without the statement timeout of a session.
        let mut connection = in_time(async { Ok(settings.connect().await?) }).await?;
        apply(migrations(), &mut connection).await?;
        in_time(async {
            connection.close().await?;
            connect(settings).await
        })
        .await?
    };
    in_time(async {
        sqlx::query!(
            "INSERT INTO installation (secret_prefix) VALUES ($1) ON CONFLICT DO NOTHING",
            prefix.as_str()
        )
        .execute(session.single())
        .await?;
        check_contents(&mut session, prefix).await?;
        session.close().await?;
        Ok(())
    })
    .await
}

/// Fails a step that is no migration after the deadline of a statement: a network that has lost a
/// connection reports nothing, and a new connection may work.
async fn in_time<T>(step: impl Future<Output = Result<T, MigrateError>>) -> Result<T, MigrateError> {
    tokio::time::timeout(STORE_DEADLINE, Box::pin(step))
        .await
        .unwrap_or(Err(StoreError::DeadlineExceeded.into()))
}

/// A migration that a database lacks.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The migration's number.
    pub version: i64,
    /// The name of its file.
    pub description: String,
    /// The locks that it takes.
    pub locks: &'static [TableLock],
}

/// Returns, without changing anything, which migrations the database lacks, in their order.
///
/// # Errors
/// [`MigrateError`].
pub async fn plan(settings: &ConnectSettings) -> Result<Vec<Planned>, MigrateError> {
    let applied = in_time(async {
        let mut connection = connect(settings).await?;
        let applied = applied(&mut connection).await?;
        connection.close().await?;
        Ok(applied)
    })
    .await?;
    let migrations = migrations();
    let lacking = migrations.iter().filter(|migration| !applied.contains(&migration.version));
    Ok(lacking
        .map(|migration| Planned {
            version: migration.version,
            description: migration.description.clone().into_owned(),
            locks: locks(migration.version),
        })
        .collect())
}

/// Returns the versions of the applied migrations, if none differs from this build's.
async fn applied(connection: &mut Session) -> Result<Vec<i64>, MigrateError> {
    let table = sqlx::query!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "exists!""#)
        .fetch_one(connection.single())
        .await?;
    if !table.exists {
        return Ok(Vec::new());
    }
    let applied = sqlx::query!(
        "SELECT version, description, checksum FROM _sqlx_migrations WHERE success ORDER BY version"
    )
    .fetch_all(connection.single())
    .await?;
    let ours: HashMap<_, _> =
        migrations().iter().map(|migration| (migration.version, migration.checksum.clone())).collect();
    let other =
        applied.iter().find(|row| ours.get(&row.version).is_some_and(|checksum| **checksum != row.checksum));
    match other {
        None => Ok(applied.into_iter().map(|row| row.version).collect()),
        Some(row) => {
            Err(MigrateError::OtherSchema { version: row.version, description: row.description.clone() })
        }
    }
}

/// Checks, without changing anything, that this build can serve the schema.
///
/// # Errors
/// [`MigrateError`].
pub async fn check(settings: &ConnectSettings, prefix: &Prefix) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(settings).await?;
        fitness::check_schema(&mut connection).await?;
        if !are_complete(&applied(&mut connection).await?) {
            return Err(MigrateError::Pending);
        }
        check_contents(&mut connection, prefix).await?;
        connection.close().await?;
        Ok(())
    })
    .await
}

/// Checks that the server's commits survive a crash of it: a revocation must not be undone.
///
/// # Errors
/// [`MigrateError::FsyncOff`], and those of an unreachable Postgres.
pub async fn check_durability(settings: &ConnectSettings) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(settings).await?;
        let row = sqlx::query!(r#"SELECT current_setting('fsync') AS "fsync!""#)
            .fetch_one(connection.single())
            .await?;
        connection.close().await?;
        if row.fsync == "on" { Ok(()) } else { Err(MigrateError::FsyncOff) }
    })
    .await
}

/// Checks that the server accepts writes from this role.
///
/// # Errors
/// [`MigrateError::Standby`], [`MigrateError::ReadOnly`], and those of an unreachable Postgres.
pub async fn check_writable(settings: &ConnectSettings) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(settings).await?;
        fitness::check_writable(&mut connection).await?;
        connection.close().await?;
        Ok(())
    })
    .await
}

/// Checks that two open connections are two sessions. A pooler in transaction mode lets them share one
/// as soon as both have run a statement, or else moves them; a statement prepared by one would be run
/// by the other.
///
/// # Errors
/// [`MigrateError::SharedSessions`], and those of an unreachable Postgres.
pub async fn check_sessions(settings: &ConnectSettings) -> Result<(), MigrateError> {
    in_time(async {
        let mut first = settings.connect().await?;
        let mut second = settings.connect().await?;
        let known = (session(&mut first).await?, session(&mut second).await?);
        let again = (session(&mut first).await?, session(&mut second).await?);
        first.close().await?;
        second.close().await?;
        if known.0 == known.1 || known != again { Err(MigrateError::SharedSessions) } else { Ok(()) }
    })
    .await
}

async fn session(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    // Unprepared, so that it leaves nothing in a session shared with other clients.
    connection.fetch_one("SELECT pg_backend_pid()::text").await?.try_get(0)
}

/// Returns this build's migrations. Migrations known only to a newer build are ignored: a schema first
/// grows, and later loses what nothing reads any more.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!();
    migrations.set_ignore_missing(true);
    migrations
}

/// Returns whether these applied migrations include all of this build.
fn are_complete(applied: &[i64]) -> bool {
    migrations().iter().all(|migration| applied.contains(&migration.version))
}

async fn connect(settings: &ConnectSettings) -> Result<Session, MigrateError> {
    let mut connection = Session::open(settings).await?;
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::int AS "number!",
               current_setting('server_version') AS "name!", current_setting('server_encoding') AS "encoding!",
               current_database()::text AS "database!""#
    )
    .fetch_one(connection.single())
    .await?;
    if server.number < OLDEST_POSTGRES {
        return Err(MigrateError::OldPostgres { version: server.name });
    }
    if server.encoding != "UTF8" {
        return Err(MigrateError::Encoding { database: server.database, encoding: server.encoding });
    }
    Ok(connection)
}

/// Checks what a migrated database contains.
async fn check_contents(session: &mut Session, prefix: &Prefix) -> Result<(), MigrateError> {
    check_prefix(session.single(), prefix).await?;
    check_triggers(session.single()).await?;
    check_sequences(session.single()).await
}

async fn check_prefix(database: StatementExecutor<'_>, prefix: &Prefix) -> Result<(), MigrateError> {
    let recorded = sqlx::query!("SELECT secret_prefix FROM installation").fetch_optional(database).await?;
    match recorded {
        None => Err(MigrateError::Pending),
        Some(row) if row.secret_prefix == prefix.as_str() => Ok(()),
        Some(row) => Err(MigrateError::OtherPrefix {
            recorded: row.secret_prefix,
            configured: prefix.as_str().to_owned(),
        }),
    }
}

/// Checks that every change of a token is recorded.
async fn check_triggers(database: StatementExecutor<'_>) -> Result<(), MigrateError> {
    let faults = sqlx::query!("SELECT string_agg(mend, '; ' ORDER BY name) AS mend FROM trigger_faults")
        .fetch_one(database);
    faults.await?.mend.map_or(Ok(()), |mend| Err(MigrateError::TriggersOff { mend }))
}

/// Checks that no sequence would give numbers that are already in use.
async fn check_sequences(database: StatementExecutor<'_>) -> Result<(), MigrateError> {
    let faults = sqlx::query!("SELECT string_agg(mend, '; ' ORDER BY name) AS mend FROM sequence_faults")
        .fetch_one(database);
    faults.await?.mend.map_or(Ok(()), |mend| Err(MigrateError::SequenceBehind { mend }))
}
