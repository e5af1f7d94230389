//! A database for each test, copied from a template that each test binary migrates once. They are
//! not dropped: the cluster goes with the process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokend::secret::Prefix;
use tokend::store::Route;
use tokio::sync::OnceCell;

use super::cluster;

const TEMPLATE: &str = "template_migrated";

/// A database, by default on this binary's cluster.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    name: String,
    socket_dir: PathBuf,
}

impl Database {
    /// Creates a database with tokend's schema and no tokens.
    pub(crate) async fn migrated() -> Self {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let template = Self::named(cluster::cluster().socket_dir(), TEMPLATE);
        MADE.get_or_init(async || {
            administer(format!("CREATE DATABASE {TEMPLATE}")).await;
            tokend::store::migrate(&template.route(), &Prefix::default()).await.unwrap();
            // The first session writes the file from which the sessions of all copies start faster.
            template.connect().await.close().await.unwrap();
        })
        .await;
        template.copied().await
    }

    /// Creates an empty database.
    pub(crate) async fn empty() -> Self {
        Self::named(cluster::cluster().socket_dir(), "template1").copied().await
    }

    /// Creates a copy of it on this binary's cluster; nothing may be connected to it.
    pub(crate) async fn copied(&self) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static STRATEGY: OnceCell<&str> = OnceCell::const_new();
        // Without fsync, copying files costs less than writing each page to the WAL. Before 15 nothing else exists.
        let strategy = STRATEGY.get_or_init(async || {
            let version = "SELECT current_setting('server_version_num')::bigint";
            let postgres = Self::named(cluster::cluster().socket_dir(), "postgres");
            if postgres.count(version).await < 150_000 { "" } else { "STRATEGY file_copy" }
        });
        let strategy = strategy.await;
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        administer(format!("CREATE DATABASE {name} TEMPLATE {} {strategy}", self.name)).await;
        Self::named(cluster::cluster().socket_dir(), &name)
    }

    /// Returns a database of the server whose socket is in this directory.
    pub(crate) fn named(socket_dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), socket_dir: socket_dir.to_owned() }
    }

    /// Creates a database with tokend's schema on the server whose socket is in this directory.
    pub(crate) async fn migrated_on(socket_dir: &Path) -> Self {
        let database = Self::named(socket_dir, "tokend");
        Self::named(socket_dir, "postgres").execute("CREATE DATABASE tokend").await;
        tokend::store::migrate(&database.route(), &Prefix::default()).await.unwrap();
        database
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the directory of its server's socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Returns the options to connect to it through its server's own socket.
    pub(crate) fn options(&self) -> PgConnectOptions {
        cluster::connect_through(&self.socket_dir, &self.name)
    }

    /// Returns the route to it, for tokend.
    pub(crate) fn route(&self) -> Route {
        self.options().into()
    }

    /// Opens a separate connection for the test.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options().disable_statement_logging().connect().await.unwrap()
    }

    /// Executes a statement as an operator does in psql; returns the number of affected rows.
    pub(crate) async fn execute(&self, sql: impl Into<String>) -> u64 {
        self.try_execute(sql).await.unwrap()
    }

    /// Executes a statement that Postgres may refuse; returns the number of affected rows.
    pub(crate) async fn try_execute(&self, sql: impl Into<String>) -> Result<u64, sqlx::Error> {
        let mut connection = self.connect().await;
        let done = sqlx::query(AssertSqlSafe(sql.into())).execute(&mut connection).await?;
        connection.close().await?;
        Ok(done.rows_affected())
    }

    /// Reads a number.
    pub(crate) async fn count(&self, sql: impl Into<String>) -> i64 {
        let mut connection = self.connect().await;
        sqlx::query_scalar(AssertSqlSafe(sql.into())).fetch_one(&mut connection).await.unwrap()
    }
}

async fn administer(sql: String) {
    let mut connection = cluster::connect_options("postgres").connect().await.unwrap();
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
