//! The directory of a cluster in these tests, and helpers to start and query it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;
use tokend::private_postgres::{Cluster, Durability, PrivatePostgresError};

/// A directory that Postgres's account can access, removed at the end.
pub(crate) struct TestDir(TempDir);

impl TestDir {
    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

pub(crate) fn test_dir() -> TestDir {
    // Not TMPDIR, which may be too deep for a socket or inaccessible to the account.
    let directory = tempfile::Builder::new().prefix("tokend-private-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    TestDir(directory)
}

pub(crate) fn start(test_dir: &TestDir) -> Result<Cluster, PrivatePostgresError> {
    Cluster::start(&test_dir.data_dir(), Durability::Durable)
}

/// Executes one statement and returns its text result, if any.
pub(crate) fn ask(cluster: &Cluster, statement: &'static str) -> String {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(cluster.socket_dir())
        .port(Cluster::PORT)
        .username(Cluster::ROLE)
        .database(Cluster::DATABASE)
        .ssl_mode(PgSslMode::Disable);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        let row = sqlx::query(statement).fetch_optional(&mut connection).await.unwrap();
        row.map_or_else(String::new, |row| row.get(0))
    })
}
