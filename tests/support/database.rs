//! A database for each test, copied from a template that each test binary migrates once. They are
//! not dropped: the cluster goes with the process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokend::secret::Prefix;
use tokend::store::ConnectSettings;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

use super::cluster;

const TEMPLATE: &str = "template_migrated";

/// A database, by default on this binary's cluster.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    name: String,
    socket_dir: PathBuf,
    session: Session,
}

/// The session of `execute` and `count`, which stays open between them: a new one costs Postgres milliseconds.
#[derive(Debug, Clone)]
enum Session {
    /// Free, in use or not open yet.
    Kept(Arc<Mutex<Option<PgConnection>>>),
    /// A new one for each statement: a test stops or replaces this server.
    New,
}

/// The runtime of the kept sessions: each test has a runtime of its own, and tests share databases.
static SESSIONS: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

async fn on_sessions<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    SESSIONS.spawn(work).await.unwrap()
}

impl Database {
    /// Creates a database with tokend's schema and no tokens.
    pub(crate) async fn migrated() -> Self {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let template = Self::shared(TEMPLATE);
        MADE.get_or_init(async || {
            administration().execute(format!("CREATE DATABASE {TEMPLATE}")).await;
            tokend::store::migrate(&template.connect_settings(), &Prefix::default()).await.unwrap();
            // The first session writes the file from which the sessions of all copies start faster.
            template.connect().await.close().await.unwrap();
        })
        .await;
        template.copied().await
    }

    /// Creates an empty database.
    pub(crate) async fn empty() -> Self {
        Self::shared("template1").copied().await
    }

    /// Creates a copy of it on its server; only `execute` and `count` may have connected to it.
    pub(crate) async fn copied(&self) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static STRATEGY: OnceCell<&str> = OnceCell::const_new();
        // Without fsync, copying files costs less than writing each page to the WAL. Before 15 nothing else exists.
        let strategy = STRATEGY.get_or_init(async || {
            let version = "SELECT current_setting('server_version_num')::bigint";
            if administration().count(version).await < 150_000 { "" } else { "STRATEGY file_copy" }
        });
        let strategy = strategy.await;
        if let Some(session) = self.free_session() {
            on_sessions(session.close()).await.unwrap();
        }
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let copying = format!("CREATE DATABASE {name} TEMPLATE {} {strategy}", self.name);
        if self.socket_dir == cluster::cluster().socket_dir() {
            administration().execute(copying).await;
            return Self::shared(&name);
        }
        Self::named(&self.socket_dir, "postgres").execute(copying).await;
        Self::named(&self.socket_dir, &name)
    }

    /// Returns a database of this binary's cluster.
    fn shared(name: &str) -> Self {
        let session = Session::Kept(Arc::default());
        Self { session, ..Self::named(cluster::cluster().socket_dir(), name) }
    }

    /// Returns a database of the server whose socket is in this directory.
    pub(crate) fn named(socket_dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), socket_dir: socket_dir.to_owned(), session: Session::New }
    }

    /// Creates a database with tokend's schema on the server whose socket is in this directory.
    pub(crate) async fn migrated_on(socket_dir: &Path) -> Self {
        let database = Self::named(socket_dir, "tokend");
        Self::named(socket_dir, "postgres").execute("CREATE DATABASE tokend").await;
        tokend::store::migrate(&database.connect_settings(), &Prefix::default()).await.unwrap();
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

    /// Returns how tokend connects to it.
    pub(crate) fn connect_settings(&self) -> ConnectSettings {
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
        let (database, sql) = (self.clone(), AssertSqlSafe(sql.into()));
        on_sessions(async move {
            let mut session = database.open_session().await;
            let done = sqlx::query(sql).execute(&mut session).await?;
            database.keep(session).await;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Executes a script that inserts many tokens: without the indexes, which are built afterwards, and without the
    /// trigger that tells replicas.
    pub(crate) async fn fill(&self, script: &str) {
        let indexes = self.drop_indexes().await.join("; ");
        let script = format!(
            "ALTER TABLE tokens DISABLE TRIGGER tokens_insert_trigger; {script}; {indexes};
             ALTER TABLE tokens ENABLE TRIGGER tokens_insert_trigger"
        );
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut self.connect().await).await.unwrap();
    }

    /// Drops the indexes of tokens except that of the primary key; returns the statements that build them.
    pub(crate) async fn drop_indexes(&self) -> Vec<String> {
        let mut connection = self.connect().await;
        let (names, definitions): (Vec<String>, Vec<String>) = sqlx::query_as(
            "SELECT array_agg(indexname::text), array_agg(indexdef) FROM pg_indexes
             WHERE tablename = 'tokens' AND indexname <> 'tokens_pkey'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        let drop = format!("DROP INDEX {}", names.join(", "));
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
        definitions
    }

    /// Reads a number.
    pub(crate) async fn count(&self, sql: impl Into<String>) -> i64 {
        let (database, sql) = (self.clone(), AssertSqlSafe(sql.into()));
        let number = on_sessions(async move {
            let mut session = database.open_session().await;
            let number = sqlx::query_scalar(sql).fetch_one(&mut session).await;
            database.keep(session).await;
            number
        });
        number.await.unwrap()
    }

    /// Returns the kept session, or a new one: none is kept, it is in use, or Postgres has ended it.
    async fn open_session(&self) -> PgConnection {
        if let Some(mut session) = self.free_session()
            // No prepared statement outlives a change of the schema.
            && session.clear_cached_statements().await.is_ok()
        {
            return session;
        }
        self.connect().await
    }

    fn free_session(&self) -> Option<PgConnection> {
        match &self.session {
            Session::Kept(kept) => kept.lock().unwrap().take(),
            Session::New => None,
        }
    }

    async fn keep(&self, session: PgConnection) {
        match &self.session {
            Session::Kept(kept) => _ = kept.lock().unwrap().replace(session),
            Session::New => session.close().await.unwrap(),
        }
    }
}

/// Returns the database from which others are created.
fn administration() -> &'static Database {
    static POSTGRES: LazyLock<Database> = LazyLock::new(|| Database::shared("postgres"));
    &POSTGRES
}
