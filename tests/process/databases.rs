//! A shared Postgres as an operator provides it for replicas: an empty database for each test, on
//! the cluster of this test binary.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use tokend::private_postgres::Cluster;

use super::cluster::{cluster, connect_options};
use super::rpc::runtime;

/// An empty database.
pub(crate) struct Database(String);

impl Database {
    pub(crate) fn new() -> Self {
        Self::made("")
    }

    /// Creates a database with this encoding.
    pub(crate) fn of_encoding(encoding: &str) -> Self {
        Self::made(&format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"))
    }

    fn made(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("process_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let statement = format!("CREATE DATABASE {name} {options}");
        runtime().block_on(async {
            let mut connection = connection(Cluster::DATABASE).await;
            connection.execute(AssertSqlSafe(statement)).await.unwrap();
            connection.close().await.unwrap();
        });
        Self(name)
    }

    /// Returns the URL of the database.
    pub(crate) fn url(&self) -> String {
        self.url_through(cluster().socket_dir())
    }

    /// Returns the URL of the database with its socket in `directory`.
    pub(crate) fn url_through(&self, directory: &Path) -> String {
        format!("postgres://{}@localhost/{}?host={}", Cluster::ROLE, self.0, directory.display())
    }

    /// Executes a statement, as anyone with write access to the database can.
    pub(crate) fn execute(&self, statement: &'static str) {
        runtime().block_on(async {
            let mut connection = connection(&self.0).await;
            connection.execute(statement).await.unwrap();
            connection.close().await.unwrap();
        });
    }

    /// Returns every row of every table as text.
    pub(crate) fn rows(&self) -> String {
        runtime().block_on(async {
            let mut connection = connection(&self.0).await;
            let tables = sqlx::query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let mut dump = String::new();
            for table in tables.iter().map(|row| row.get::<String, _>(0)) {
                let statement = AssertSqlSafe(format!("SELECT t::text FROM {table} AS t"));
                for row in sqlx::query(statement).fetch_all(&mut connection).await.unwrap() {
                    dump.push_str(&row.get::<String, _>(0));
                    dump.push('\n');
                }
            }
            connection.close().await.unwrap();
            dump
        })
    }
}

async fn connection(database: &str) -> PgConnection {
    connect_options(database).connect().await.unwrap()
}
