//! The private Postgres of a run, with durable settings, and one database for each table size. Kept for
//! the next run if the plan names a directory. Counts the statements of databases for which that is wanted,
//! if this Postgres has `pg_stat_statements`.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokend::private_postgres::{Cluster, Durability};
use tokio::runtime::{Builder, Runtime};

/// Short, and accessible to the account that runs Postgres.
const PARENT: &str = "/tmp";

/// The maximum number of connections of Postgres.
const CONNECTIONS: i32 = 300;

/// A running Postgres.
#[derive(Debug)]
pub(crate) struct Postgres {
    cluster: Cluster,
    directory: PathBuf,
    /// Removed after the cluster has stopped.
    _disposable: Option<TempDir>,
}

impl Postgres {
    /// Starts Postgres in `kept`, or in a directory that is removed with it. Called on the main thread,
    /// because Postgres ends with that.
    pub(crate) fn start(kept: Option<&Path>) -> anyhow::Result<Self> {
        let (directory, disposable) = if let Some(kept) = kept {
            (kept.to_owned(), None)
        } else {
            let made = tempfile::Builder::new().prefix("tokend-bench-").tempdir_in(PARENT)?;
            (made.path().to_owned(), Some(made))
        };
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o711))?;
        let start = || Cluster::start(&directory, Durability::Durable).context("no Postgres for the bench");
        let mut cluster = start()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        if runtime.block_on(prepare_settings(&cluster))? {
            // Only a new start has them.
            drop(cluster);
            cluster = start()?;
        }
        Ok(Self { cluster, directory, _disposable: disposable })
    }

    /// Sets that the statements of a database's new sessions are counted.
    pub(crate) async fn count_statements(&self, database: &str) -> anyhow::Result<()> {
        let mut connection = self.options(Cluster::DATABASE).connect().await?;
        let role = Cluster::ROLE;
        let setting = format!("ALTER ROLE {role} IN DATABASE {database} SET pg_stat_statements.track = top");
        execute(&mut connection, setting).await?;
        Ok(connection.close().await?)
    }

    /// Returns the directory for files that belong to the data.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the process id of the postmaster.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let file = fs::read_to_string(self.directory.join("postgres/postmaster.pid"))?;
        Ok(file.lines().next().context("an empty pid file")?.trim().parse()?)
    }

    /// Returns the connect options of a database.
    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        options(&self.cluster, database)
    }

    /// Returns the URL of a database, for another process.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.cluster.socket_dir().display().to_string().replace('/', "%2F");
        format!("postgres://{}@{socket}:{}/{database}?sslmode=disable", Cluster::ROLE, Cluster::PORT)
    }

    /// Creates a database with the schema of a build, unless it exists; returns whether it was created.
    pub(crate) async fn make(&self, database: &str, build: &Path) -> anyhow::Result<bool> {
        let mut connection = self.options(Cluster::DATABASE).connect().await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            execute(&mut connection, format!("CREATE DATABASE {database}")).await?;
        }
        connection.close().await?;
        let migrated = Command::new(build).arg("migrate").env("DATABASE_URL", self.url(database)).output()?;
        let error = String::from_utf8_lossy(&migrated.stderr);
        ensure!(migrated.status.success(), "{} cannot migrate: {error}", build.display());
        Ok(!exists)
    }

    /// Drops a database that was not completely filled.
    pub(crate) async fn drop_database(&self, database: &str) -> anyhow::Result<()> {
        let mut connection = self.options(Cluster::DATABASE).connect().await?;
        execute(&mut connection, format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await?;
        Ok(connection.close().await?)
    }
}

/// Returns the connect options of a database.
fn options(cluster: &Cluster, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(cluster.socket_dir())
        .port(Cluster::PORT)
        .username(Cluster::ROLE)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging()
}

/// Sets that there are enough connections for all servers of a run, and that statements can be counted, but
/// none are by default. Returns whether Postgres must be started again.
async fn prepare_settings(cluster: &Cluster) -> anyhow::Result<bool> {
    let mut connection = options(cluster, Cluster::DATABASE).connect().await?;
    let set = sqlx::query_scalar("SELECT current_setting('max_connections')::integer");
    let set: i32 = set.fetch_one(&mut connection).await?;
    if set != CONNECTIONS {
        execute(&mut connection, format!("ALTER SYSTEM SET max_connections = {CONNECTIONS}")).await?;
        let library: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')",
        )
        .fetch_one(&mut connection)
        .await?;
        if library {
            let load = "ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements".to_owned();
            execute(&mut connection, load).await?;
            let role = Cluster::ROLE;
            execute(&mut connection, format!("ALTER ROLE {role} SET pg_stat_statements.track = none"))
                .await?;
        }
    }
    connection.close().await?;
    Ok(set != CONNECTIONS)
}

/// How many statements each database has executed.
#[derive(Debug)]
pub(crate) struct Statements {
    runtime: Runtime,
    /// `None`: they cannot be counted.
    connection: Option<RefCell<PgConnection>>,
}

impl Statements {
    /// Connects.
    pub(crate) fn open(postgres: &Postgres) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut connection = runtime.block_on(postgres.options(Cluster::DATABASE).connect())?;
        let library = sqlx::query_scalar("SELECT current_setting('shared_preload_libraries')");
        let library: String = runtime.block_on(library.fetch_one(&mut connection))?;
        if library.is_empty() {
            println!(
                "statements are not counted: this Postgres has no pg_stat_statements (postgresql-contrib)"
            );
            return Ok(Self { runtime, connection: None });
        }
        let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements".to_owned();
        runtime.block_on(execute(&mut connection, create))?;
        Ok(Self { runtime, connection: Some(connection.into()) })
    }

    /// Returns how many a database has executed so far.
    pub(crate) fn of(&self, database: &str) -> anyhow::Result<Option<u64>> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let count = sqlx::query_scalar(
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements(false)
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)",
        );
        let connection = &mut *connection.borrow_mut();
        let count: i64 = self.runtime.block_on(count.bind(database).fetch_one(connection))?;
        Ok(Some(count.try_into()?))
    }
}

/// Executes a statement of the bench.
pub(crate) async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
