//! Why this build cannot serve a database: conditions that may pass, and those that an operator must
//! fix.

use super::lock_holders::Holders;
use crate::store::{StoreError, reasons};

/// Why this build cannot serve the database or its schema.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres did not respond; it may later.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is too old.
    #[error("Postgres {version} is too old; tokend needs Postgres 14 or newer")]
    OldPostgres {
        /// The server's version.
        version: String,
    },
    /// The database's encoding cannot store every text.
    #[error(
        "the database '{database}' has the encoding {encoding}, which cannot hold what people write in names; tokend \
         needs UTF8: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
    )]
    Encoding {
        /// The database's name.
        database: String,
        /// The server's name of the encoding.
        encoding: String,
    },
    /// Postgres refused, and waiting will not change that.
    #[error(
        "Postgres refuses tokend: correct the database URL, or create the role, the database or the grant \
         that is missing"
    )]
    Denied(#[source] sqlx::Error),
    /// The server is a standby; it may be promoted.
    #[error(
        "this is a standby (pg_is_in_recovery() is true), but tokend needs the primary: point the database \
         URL at the primary, or promote this server"
    )]
    Standby,
    /// The server accepts writes, but this role's sessions are read-only.
    #[error(
        "the sessions of role '{role}' are read-only, by default_transaction_read_only = on in {set_by}: reset it"
    )]
    ReadOnly {
        /// The connected role.
        role: String,
        /// The source of the setting.
        set_by: String,
    },
    /// Tokend's tables are in a schema outside this role's search path.
    #[error(
        "the tables of tokend are in schema '{found}', but this role's search_path leads to '{current}', \
         where a second, empty installation would be created: run ALTER ROLE … SET search_path = {found}"
    )]
    TablesElsewhere {
        /// The schema with tokend's tables.
        found: String,
        /// The schema where new tables would be created.
        current: String,
    },
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A migration could not get a lock.
    #[error(
        "migration {version} did not get a lock that others hold, and gave way to them: {holders}; end these \
         transactions (SELECT pg_terminate_backend(PID)), or migrate after they have ended"
    )]
    Locked {
        /// The migration's number.
        version: i64,
        /// The holders of the locks it needs.
        holders: Holders,
    },
    /// The server can lose committed changes.
    #[error("Postgres runs with fsync=off and can undo revocations in a crash; set fsync=on")]
    FsyncOff,
    /// The schema lacks migrations of this build.
    #[error("the database lacks migrations; run `tokend migrate`, or serve without --no-migrate")]
    Pending,
    /// An applied migration differs from this build's of the same number.
    #[error(
        "this database was set up by a tokend from before its first release, or its migrations were altered: \
         migration {version} ({description}) is not this build's; point tokend at an empty database, or \
         serve this one with the build that set it up"
    )]
    OtherSchema {
        /// The migration's number.
        version: i64,
        /// The migration's description in the database.
        description: String,
    },
    /// Different connections share sessions.
    #[error(
        "Postgres is behind a pooler in transaction mode: set --database-pooling transaction, or point \
         --direct-database-url at Postgres itself"
    )]
    SharedSessions,
    /// Migrations need a lock of their session, which a transaction pooler cannot provide.
    #[error(
        "migrations need a dedicated session, which a pooler in transaction mode does not provide: set \
         --direct-database-url, or run `tokend migrate` with a URL that bypasses the pooler and serve with \
         --no-migrate"
    )]
    NoSession,
    /// Triggers of the table `tokens` are not as they must be.
    #[error(
        "replicas do not learn of changes: triggers of the table tokens are off, as after a restore with \
         --disable-triggers; run as its owner: {mend}; DELETE FROM server_mark"
    )]
    TriggersOff {
        /// The statements that fix them. Emptying `server_mark` too makes replicas and watchers start
        /// again: they may have missed changes.
        mend: String,
    },
    /// A sequence would give numbers that are already in use.
    #[error(
        "a sequence is behind its table, as after logical replication, so inserts would fail; run as its \
         owner: {mend}"
    )]
    SequenceBehind {
        /// The statements that fix the sequences.
        mend: String,
    },
    /// The database was set up for secrets with another prefix.
    #[error(
        "this database's secrets begin with '{recorded}', not '{configured}'; set --secret-prefix {recorded}"
    )]
    OtherPrefix {
        /// The prefix recorded by the first migration.
        recorded: String,
        /// The prefix configured for this process.
        configured: String,
    },
}

impl MigrateError {
    /// Returns whether waiting may help: Postgres was unavailable or busy, or is a standby.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Standby
                | Self::Locked { .. }
                | Self::Store(StoreError::Unavailable(_) | StoreError::DeadlineExceeded)
        )
    }

    /// Returns whether the server refused to authenticate this client.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self, Self::Denied(error) if reasons::is_authentication(error))
    }

    /// Returns a short fixed text, without any names, why the database cannot be served yet.
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

/// Returns whether an error may be gone the next time: every error that the server did not report
/// itself, and those that report its state: a lost connection (08), a standby (25), an aborted
/// transaction (40), too many connections (53), a lock (55), a start or stop (57).
fn passes(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return true };
    error
        .code()
        .is_none_or(|code| ["08", "25", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class)))
}
