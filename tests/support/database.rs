//! A database for each test, copied from a template that each test binary migrates once. Nobody drops
//! them: the cluster goes with the process.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokend::secret::Prefix;
use tokio::sync::OnceCell;

use super::cluster;

const TEMPLATE: &str = "template_migrated";

/// The name of a database on this binary's cluster.
#[derive(Debug, Clone)]
pub(crate) struct Database(String);

impl Database {
    /// Makes a database with tokend's schema and no tokens.
    pub(crate) async fn migrated() -> Self {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let template = Self(TEMPLATE.to_owned());
        MADE.get_or_init(async || {
            administer(format!("CREATE DATABASE {TEMPLATE}")).await;
            tokend::store::migrate(&template.options(), &Prefix::default()).await.unwrap();
        })
        .await;
        Self::copy(TEMPLATE).await
    }

    /// Makes a database with nothing in it.
    pub(crate) async fn empty() -> Self {
        Self::copy("template1").await
    }

    async fn copy(template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        administer(format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self(name)
    }

    /// Returns what connects to it through the cluster's own socket.
    pub(crate) fn options(&self) -> PgConnectOptions {
        cluster::connect_options(&self.0)
    }

    /// Opens a connection of the test's own.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options().disable_statement_logging().connect().await.unwrap()
    }

    /// Does what an operator does in psql. Returns how many rows the statement touched.
    pub(crate) async fn execute(&self, sql: impl Into<String>) -> u64 {
        self.try_execute(sql).await.unwrap()
    }

    /// Does the same where Postgres may refuse.
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
