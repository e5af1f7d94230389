//! Bringing the schema to what this build needs, and refusing a database that is not ours to use. Called
//! at the start of `serve` and by `tokend migrate` and `tokend bootstrap`.

use std::collections::HashMap;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::apply::{Holders, apply};
use super::plan::{TableLock, locks};
use super::pooling::{Pooling, Route, Session, Single};
use super::{DEADLINE, StoreError, fitness, reasons};
use crate::secret::Prefix;

/// The oldest Postgres that is supported, as its `server_version_num`.
const OLDEST_POSTGRES: i32 = 140_000;

/// Why the schema is not one that this build can serve.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres gave no answer; it may later.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is too old.
    #[error("Postgres {version} is too old; tokend needs Postgres 14 or newer")]
    OldPostgres {
        /// What the server calls its version.
        version: String,
    },
    /// The database cannot hold every text.
    #[error(
        "the database '{database}' has the encoding {encoding}, which cannot hold what people write in names; tokend \
         needs UTF8: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
    )]
    Encoding {
        /// The database's name.
        database: String,
        /// What the server calls its encoding.
        encoding: String,
    },
    /// Postgres answered, and waiting will not change what it says.
    #[error(
        "Postgres refuses tokend: correct the database URL, or create the role, the database or the grant \
         that is missing"
    )]
    Denied(#[source] sqlx::Error),
    /// The server is a standby; it may be promoted.
    #[error(
        "this is a standby (pg_is_in_recovery() says so), and tokend needs the primary: lead the database URL to \
         the primary; this one will do once it is promoted"
    )]
    Standby,
    /// The server takes changes, and this role's sessions make none.
    #[error(
        "the sessions of role '{role}' are read-only, by default_transaction_read_only = on in {set_by}: reset it"
    )]
    ReadOnly {
        /// Who is connected.
        role: String,
        /// What sets it.
        set_by: String,
    },
    /// Tokend's tables are where this role does not look.
    #[error(
        "schema '{found}' of this database has tokend's tables, and this role's search_path leads to '{current}', \
         where a second, empty installation would be made: ALTER ROLE … SET search_path = {found}"
    )]
    TablesElsewhere {
        /// Where they are.
        found: String,
        /// Where new tables would be made.
        current: String,
    },
    /// A migration was not accepted.
    #[error("a migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A migration does not get a lock.
    #[error(
        "migration {version} waits for a lock that others do not give up, and has let them go on: {holders}; end \
         these transactions (SELECT pg_terminate_backend(PID)), or migrate when they are over"
    )]
    Locked {
        /// The migration's number.
        version: i64,
        /// Who holds what it needs.
        holders: Holders,
    },
    /// The server can lose what it has committed.
    #[error("Postgres runs with fsync=off and can undo revocations in a crash; set fsync=on")]
    FsyncOff,
    /// The schema lacks migrations of this build.
    #[error("the database lacks migrations; run `tokend migrate`, or serve without --no-migrate")]
    Pending,
    /// A migration that was applied is another than this build's of the same number.
    #[error(
        "this database was set up by a tokend from before its first release, or its migrations were altered: \
         migration {version} ({description}) is not this build's; lead tokend to an empty database, or serve this \
         one with the build that set it up"
    )]
    OtherSchema {
        /// The migration's number.
        version: i64,
        /// What the database calls it.
        description: String,
    },
    /// Connections turned out to share sessions.
    #[error(
        "Postgres is reached by a pooler in transaction mode: set --database-pooling transaction, or \
         lead --direct-database-url past it"
    )]
    SharedSessions,
    /// A migration holds a lock of its session.
    #[error(
        "migrations need a session of their own, which a pooler in transaction mode does not give: set \
         --direct-database-url, or run `tokend migrate` with a URL past the pooler and serve with --no-migrate"
    )]
    NoSession,
    /// Triggers of the table `tokens` are not as they must be.
    #[error(
        "replicas do not hear of changes: triggers of the table tokens are off, as a restore with --disable-triggers \
         leaves them; as its owner: {mend}; DELETE FROM server_mark"
    )]
    TriggersOff {
        /// What puts them right. Emptying `server_mark` besides has replicas and watchers start anew: they may have
        /// missed something.
        mend: String,
    },
    /// A sequence gives numbers that are there already.
    #[error(
        "a sequence is behind its table, as logical replication leaves it, and what takes a number from it would fail; \
         as its owner: {mend}"
    )]
    SequenceBehind {
        /// The statements that put them right.
        mend: String,
    },
    /// The database was set up for secrets with another prefix.
    #[error(
        "this database's secrets begin with '{recorded}', not '{configured}'; set --secret-prefix {recorded}"
    )]
    OtherPrefix {
        /// What its first migration recorded.
        recorded: String,
        /// What this process was given.
        configured: String,
    },
}

impl MigrateError {
    /// Tells whether waiting may help: Postgres was away or busy, rather than wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Standby
                | Self::Locked { .. }
                | Self::Store(StoreError::Unavailable(_) | StoreError::DeadlineExceeded)
        )
    }

    /// Tells whether the server did not accept who this is.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self, Self::Denied(error) if reasons::is_authentication(error))
    }

    /// Says in a few fixed words, which name nothing, why the database cannot be served yet.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => error.reason(),
            Self::Denied(error) => reasons::reason(error),
            Self::Standby => reasons::STANDBY,
            Self::Locked { .. } => "a migration waits for a lock",
            _ => "the database cannot be used",
        }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        if passes(&error) { Self::Store(error.into()) } else { Self::Denied(error) }
    }
}

/// Tells whether an error may be gone the next time: everything that is not the server's own word, and of
/// that what it says of its state: a lost connection (08), a standby (25), a broken up transaction (40), too
/// many connections (53), a lock (55), a start or stop (57).
fn passes(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return true };
    error
        .code()
        .is_none_or(|code| ["08", "25", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class)))
}

/// Applies the migrations that the database lacks, and records the prefix if it has none. Any number of
/// processes may do so at once: they take turns. Where others hold a lock that a migration needs, it waits briefly
/// and lets them go on, eight times, and then gives up. A database that a newer build has migrated further is
/// accepted.
///
/// # Errors
/// [`MigrateError`]; what was applied before the failing migration stays.
pub async fn migrate(route: &Route, prefix: &Prefix) -> Result<(), MigrateError> {
    // The migrator holds a session's lock.
    if route.pooling == Pooling::Transaction {
        return Err(MigrateError::NoSession);
    }
    let mut connection = in_time(async {
        check_sessions(route).await?;
        let mut session = connect(route).await?;
        fitness::check_writable(&mut session).await?;
        fitness::check_schema(&mut session).await?;
        applied(&mut session).await?;
        session.close().await?;
        Ok(route.connect().await?)
    })
    .await?;
    apply(migrations(), &mut connection).await?;
    in_time(async {
        sqlx::query!(
            "INSERT INTO installation (secret_prefix) VALUES ($1) ON CONFLICT DO NOTHING",
            prefix.as_str()
        )
        .execute(&mut connection)
        .await?;
        check_prefix(Single::Of(&mut connection), prefix).await?;
        check_triggers(Single::Of(&mut connection)).await?;
        check_sequences(Single::Of(&mut connection)).await?;
        connection.close().await?;
        Ok(())
    })
    .await
}

/// Gives up a step that is no migration after as long as a statement is waited for: a network that has forgotten a
/// connection says nothing, and a new one may do.
async fn in_time<T>(step: impl Future<Output = Result<T, MigrateError>>) -> Result<T, MigrateError> {
    tokio::time::timeout(DEADLINE, Box::pin(step)).await.unwrap_or(Err(StoreError::DeadlineExceeded.into()))
}

/// A migration that a database lacks.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its number.
    pub version: i64,
    /// What its file is called.
    pub description: String,
    /// What it locks.
    pub locks: &'static [TableLock],
}

/// Tells, without changing anything, which migrations the database lacks, in their order.
///
/// # Errors
/// [`MigrateError`].
pub async fn plan(route: &Route) -> Result<Vec<Planned>, MigrateError> {
    let applied = in_time(async {
        let mut connection = connect(route).await?;
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

/// Returns which migrations the database has, where none is another than this build's.
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

/// Checks, without changing anything, that the schema is one that this build can serve.
///
/// # Errors
/// [`MigrateError`].
pub async fn check(route: &Route, prefix: &Prefix) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(route).await?;
        fitness::check_schema(&mut connection).await?;
        let applied = applied(&mut connection).await?;
        if !migrations().iter().all(|migration| applied.contains(&migration.version)) {
            return Err(MigrateError::Pending);
        }
        check_prefix(connection.single(), prefix).await?;
        check_triggers(connection.single()).await?;
        check_sequences(connection.single()).await?;
        connection.close().await?;
        Ok(())
    })
    .await
}

/// Checks that what the server commits survives a crash of it: a revocation must not be undone.
///
/// # Errors
/// [`MigrateError::FsyncOff`], and those of an unreachable Postgres.
pub async fn check_durability(route: &Route) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(route).await?;
        let row = sqlx::query!(r#"SELECT current_setting('fsync') AS "fsync!""#)
            .fetch_one(connection.single())
            .await?;
        connection.close().await?;
        if row.fsync == "on" { Ok(()) } else { Err(MigrateError::FsyncOff) }
    })
    .await
}

/// Checks that the server takes changes from this role.
///
/// # Errors
/// [`MigrateError::Standby`], [`MigrateError::ReadOnly`], and those of an unreachable Postgres.
pub async fn check_writable(route: &Route) -> Result<(), MigrateError> {
    in_time(async {
        let mut connection = connect(route).await?;
        fitness::check_writable(&mut connection).await?;
        connection.close().await?;
        Ok(())
    })
    .await
}

/// Checks that two open connections are two sessions. A pooler in transaction mode has them share one as soon
/// as both have asked, or else moves them about; what one prepares would be run by the other.
///
/// # Errors
/// [`MigrateError::SharedSessions`], and those of an unreachable Postgres.
pub async fn check_sessions(route: &Route) -> Result<(), MigrateError> {
    in_time(async {
        let mut first = route.connect().await?;
        let mut second = route.connect().await?;
        let known = (session(&mut first).await?, session(&mut second).await?);
        let again = (session(&mut first).await?, session(&mut second).await?);
        first.close().await?;
        second.close().await?;
        if known.0 == known.1 || known != again { Err(MigrateError::SharedSessions) } else { Ok(()) }
    })
    .await
}

async fn session(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    // Unprepared, so that nothing of it is left in a session that is not ours.
    connection.fetch_one("SELECT pg_backend_pid()::text").await?.try_get(0)
}

/// Returns this build's migrations. Those that only a newer build knows are no obstacle: a schema grows
/// first, and loses what nobody reads any more later.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!();
    migrations.set_ignore_missing(true);
    migrations
}

async fn connect(route: &Route) -> Result<Session, MigrateError> {
    let mut connection = Session::open(route).await?;
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

async fn check_prefix(database: Single<'_>, prefix: &Prefix) -> Result<(), MigrateError> {
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
async fn check_triggers(database: Single<'_>) -> Result<(), MigrateError> {
    let faults = sqlx::query!("SELECT string_agg(mend, '; ' ORDER BY name) AS mend FROM trigger_faults")
        .fetch_one(database);
    faults.await?.mend.map_or(Ok(()), |mend| Err(MigrateError::TriggersOff { mend }))
}

/// Checks that no sequence gives numbers that are there already.
async fn check_sequences(database: Single<'_>) -> Result<(), MigrateError> {
    let faults = sqlx::query!("SELECT string_agg(mend, '; ' ORDER BY name) AS mend FROM sequence_faults")
        .fetch_one(database);
    faults.await?.mend.map_or(Ok(()), |mend| Err(MigrateError::SequenceBehind { mend }))
}
