//! The private Postgres of a run, with durable settings, and one database for each table size. Kept for
//! the next run if the plan names a directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokend::private_postgres::{Cluster, Durability};

/// Short, and accessible to the account that runs Postgres.
const PARENT: &str = "/tmp";

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
        let cluster = Cluster::start(&directory, Durability::Durable).context("no Postgres for the bench")?;
        Ok(Self { cluster, directory, _disposable: disposable })
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
        PgConnectOptions::new_without_pgpass()
            .socket(self.cluster.socket_dir())
            .port(Cluster::PORT)
            .username(Cluster::ROLE)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging()
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

/// Executes a statement of the bench.
pub(crate) async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
