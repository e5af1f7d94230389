//! All access to Postgres. Called by the actions, the engine and the jobs with domain types; row types,
//! SQL and SQLSTATEs stay in here. A function is one statement, or a few that belong together; the
//! actions combine them into transactions. Each has a deadline. Knows no gRPC and no HTTP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use time::OffsetDateTime;

use crate::clock::BootInstant;
use crate::runtime::deadline;
use pooling::{Pool, StatementExecutor};

mod allowances;
mod audit;
mod bootstrap;
mod cached_records;
mod changes;
mod clock;
mod columns;
mod connect_settings;
mod connection;
mod credit_additions;
mod credits;
mod enforcement;
mod events;
mod families;
mod grants;
mod limit_plans;
mod links;
mod locks;
mod logins;
mod macs;
mod migrations;
mod owners;
mod plans;
mod policies;
mod pooling;
mod portals;
mod reasons;
mod refusals;
mod replicas;
mod requests;
mod retention;
mod revoke;
mod roots;
mod rows;
mod seal_checks;
mod seals;
mod sessions;
mod token_listing;
mod tokens;
mod transaction;
mod usage;
mod user_listing;
mod users;
mod uses;
mod watch;

pub use allowances::{AllowanceKey, Leased, RateAsk, RateLease};
pub use audit::{EventFilter, Events};
pub use bootstrap::FirstRoot;
pub use cached_records::Loaded;
pub use changes::{ChangeCursor, ChangePage, Snapshot};
pub use clock::{Clock, ClockCheck, ClockReading, Epoch, TOLERANCE};
pub use connect_settings::{ConnectSettings, PasswordFile, PoolerMode};
pub use connection::{Connection, Connector, Listener};
pub use credit_additions::{Addition, CreditLimit, StoredAllowance};
pub use credits::{CreditAsk, CreditLease, Settlement};
pub use enforcement::Breaches;
pub use families::{Member, Successor};
pub use limit_plans::{LoadedPlan, PlanKey};
pub use macs::MacChange;
pub use migrations::{
    Holders, LockMode, MigrateError, Planned, TableLock, TableWork, check, check_durability, check_sessions,
    check_writable, migrate, plan,
};
pub use plans::PlanToken;
pub use policies::PolicyContext;
pub use replicas::LEASE;
pub use requests::{KnownRequest, NewRequest, Stored};
pub use revoke::OnChange;
pub use seal_checks::{CheckedSeal, Finding, SealWalk};
pub use seals::{Candidate, SealPass, Sealed};
pub use sessions::Which;
pub use token_listing::Walk;
pub use tokens::NewToken;
pub use transaction::{Transaction, TransactionError};
pub use user_listing::UserPage;
pub use watch::{Change, ChangeKind, WatchPage};

/// The deadline of one call into the store.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// The deadline of revoking, disabling or enabling all tokens of a user, up to a hundred thousand.
pub const USER_DEADLINE: Duration = Duration::from_mins(1);

/// The maximum number of attempts of a transaction that Postgres aborts because of a deadlock.
const CONFLICT_ATTEMPTS: usize = 3;

/// Makes commits of this connection survive a crash of the server, independent of its default: an
/// acknowledged revocation must not be undone. Sets a statement timeout, so that no statement outlasts
/// its caller. Stores which server the connection leads to, for `server_epoch`.
async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT set_config('statement_timeout', $1, false) AS timeout,
             CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
                 THEN set_config('synchronous_commit', 'on', false) END AS commits,
             set_config('tokend.server', (SELECT system_identifier FROM pg_control_system()) || '/'
                 || (SELECT oid FROM pg_database WHERE datname = current_database()), false) AS server",
        STORE_DEADLINE.as_millis().to_string()
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Why Postgres gave no usable response.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres has not been reached, or its schema has not been checked, since this process started.
    #[error("the database is not ready yet")]
    Starting,
    /// Postgres could not be reached or did not finish.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Postgres did not respond in time.
    #[error("the database did not answer within {} seconds", STORE_DEADLINE.as_secs())]
    DeadlineExceeded,
    /// A server responded that is not the one whose changes are followed, or is in another epoch.
    #[error("the database server has changed")]
    OtherServer,
    /// Postgres has committed the change, but a standby may not have it.
    #[error("the database has not confirmed that the change would survive its failure")]
    Unconfirmed,
    /// Postgres rejected something that tokend should never have sent.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A row contains something that tokend never writes.
    #[error("column {column} of a row in {table} cannot be read")]
    Corrupt {
        /// The row's table.
        table: &'static str,
        /// The column that cannot be read.
        column: &'static str,
    },
    /// The database's clock is not a valid moment.
    #[error("the database's clock is outside of the years 1 to 9999; set it")]
    Clock,
    /// A step that must succeed before the commit failed.
    #[error("the step before the commit failed")]
    BeforeCommit(#[source] std::io::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // Class 22 (data exception) and 23 (constraint violation) are tokend's own mistakes; anything
        // else (no connection, no schema, no permission, a standby) is a database that cannot serve.
        let ours = match &error {
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
            }
            sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
            _ => false,
        };
        if ours { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

impl StoreError {
    /// Returns whether Postgres aborted a transaction that may succeed when retried.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        // 40P01 deadlock detected, 40001 serialization failure.
        matches!(self, Self::Unavailable(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("40P01" | "40001")))
    }
}

/// Returns an error if Postgres warned that it did not wait for a standby: its failure may undo the commit.
const fn confirmed(warned: bool) -> Result<(), StoreError> {
    if warned { Err(StoreError::Unconfirmed) } else { Ok(()) }
}

/// The use of the pool's connections. Each has its own pool, so that none waits for another: a COMMIT
/// may wait for a standby for as long as there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading data.
    Reads,
    /// Changing data.
    Writes,
    /// Revoking or disabling tokens.
    Revocations,
}

/// Access to Postgres; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Arc<Pools>,
    purpose: Purpose,
    settings: Arc<ConnectSettings>,
    ready: Arc<AtomicBool>,
    clock: Clock,
}

#[derive(Debug)]
struct Pools {
    reads: Pool,
    writes: Pool,
    revocations: Pool,
}

impl Pools {
    fn all(&self) -> [&Pool; 3] {
        [&self.reads, &self.writes, &self.revocations]
    }
}

impl Store {
    /// Prepares at most `connections` connections, but at least one for each purpose, opened when
    /// needed. A quarter is for revocations; the rest is split between reads and writes. Every call
    /// fails with [`StoreError::Starting`] until [`Self::open`].
    #[must_use]
    pub fn new(settings: impl Into<ConnectSettings>, connections: u32) -> Self {
        let settings = settings.into();
        let revocations = (connections / 4).max(1);
        let reading = (connections.saturating_sub(revocations) / 2).max(1);
        let writes = connections.saturating_sub(revocations + reading).max(1);
        let clock = Clock::default();
        let sized = |size| {
            let mut pool = PgPoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(3));
            if settings.pooling == PoolerMode::Session {
                pool = pool.after_connect(|connection, _| Box::pin(prepare(connection)));
            }
            let connections = pool.connect_lazy_with(settings.options.clone());
            Pool { connections, pooling: settings.pooling, clock: clock.clone() }
        };
        let pools = Pools { reads: sized(reading), writes: sized(writes), revocations: sized(revocations) };
        let ready = Arc::new(AtomicBool::new(false));
        Self { pools: Arc::new(pools), purpose: Purpose::Writes, settings: Arc::new(settings), ready, clock }
    }

    /// Returns this store with the connections for `purpose`; a new store uses those for writes.
    #[must_use]
    pub fn on(&self, purpose: Purpose) -> Self {
        Self { purpose, ..self.clone() }
    }

    /// Returns the maximum number of connections for this purpose.
    #[must_use]
    pub fn connections_of(&self, purpose: Purpose) -> usize {
        self.pool_of(purpose).connections.options().get_max_connections() as usize
    }

    fn pool_of(&self, purpose: Purpose) -> &Pool {
        match purpose {
            Purpose::Reads => &self.pools.reads,
            Purpose::Writes => &self.pools.writes,
            Purpose::Revocations => &self.pools.revocations,
        }
    }

    /// Allows calls, once the schema has been checked.
    pub fn open(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Returns whether old rows may be deleted now. Not at the start, until the server's clock has been read.
    #[must_use]
    pub fn may_delete(&self) -> bool {
        self.time_to_delete_by().is_some()
    }

    /// Returns the time by which old rows may be deleted; `None`: nothing may be deleted now.
    fn time_to_delete_by(&self) -> Option<OffsetDateTime> {
        self.clock.expected(BootInstant::now()).map(clock::earlier)
    }

    /// Checks that Postgres responds.
    ///
    /// # Errors
    /// [`StoreError`]: it does not respond.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.within(async {
            sqlx::query!("SELECT 1 AS alive").fetch_one(self.on(Purpose::Reads).single()?).await?;
            Ok(())
        })
        .await
    }

    /// Opens and closes a new connection: the existing ones do not prove that new ones are accepted.
    ///
    /// # Errors
    /// [`StoreError`]: no connection can be opened.
    pub async fn try_connecting(&self) -> Result<(), StoreError> {
        self.pool()?;
        self.within(async { Ok(self.settings.connect().await?.close().await?) }).await
    }

    /// Opens later connections with the current content of the password file; returns whether it has
    /// changed. `None`: there is no such file.
    ///
    /// # Errors
    /// The file cannot be read; the last password is still used.
    pub fn renew_password(&self) -> io::Result<Option<bool>> {
        let Some(file) = &self.settings.password_file else { return Ok(None) };
        let changed = file.read_changed()?;
        if let Some(password) = &changed {
            let options = self.settings.options.clone().password(password.expose_secret());
            for pool in self.pools.all() {
                pool.connections.set_connect_options(options.clone());
            }
        }
        Ok(Some(changed.is_some()))
    }

    /// Returns how many connections are in use, for any purpose, and how many are idle.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        self.pools.all().iter().fold((0, 0), |(used, all_idle), Pool { connections, .. }| {
            let idle = u32::try_from(connections.num_idle()).unwrap_or(u32::MAX);
            (used + connections.size().saturating_sub(idle), all_idle + idle)
        })
    }

    /// Closes every connection, after its current work has ended.
    pub async fn close(&self) {
        for pool in self.pools.all() {
            pool.connections.close().await;
        }
    }

    fn pool(&self) -> Result<&Pool, StoreError> {
        if self.ready.load(Ordering::Acquire) {
            Ok(self.pool_of(self.purpose))
        } else {
            Err(StoreError::Starting)
        }
    }

    /// Returns an executor for a single statement outside a transaction.
    fn single(&self) -> Result<StatementExecutor<'_>, StoreError> {
        Ok(self.pool()?.single())
    }

    /// Runs one statement or transaction under the deadline.
    async fn within<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let outcome = tokio::time::timeout(deadline::at_most(STORE_DEADLINE), work).await;
        outcome.unwrap_or(Err(StoreError::DeadlineExceeded))
    }

    /// Runs a transaction under the deadline, and retries it after a deadlock.
    async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.retrying_within(STORE_DEADLINE, StoreError::is_conflict, attempt).await
    }
}
