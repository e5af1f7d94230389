//! Why a database is not one that this build can serve: what may pass by itself, and what somebody has to put right.

use super::lock_holders::Holders;
use super::{StoreError, reasons};

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
