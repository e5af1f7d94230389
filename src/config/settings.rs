//! The typed settings of each command: what `resolve` makes and the commands use.
//!
//! Everything here is parsed and allowed; nothing is optional that has a default. None of these
//! types shows itself, since most hold a database password or keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::values::LogFilter;
use crate::api::http::config::IntegrationsConfig;
use crate::domain::CertificateMappings;
use crate::jobs::retention::Retention;
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::server::Limits;
use crate::store::Route;
use crate::telemetry::{LogFormat, Sampling};
use crate::transport::tls::TlsFiles;
use crate::verify::Bounds;

/// How and which log lines are written.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// Which lines.
    pub filter: LogFilter,
}

/// Where the database of a command is that does not serve.
#[derive(Clone)]
pub enum DatabasePlace {
    /// Looked after by somebody else. The way to it, credentials included; past a pooler if there is one.
    Shared(Box<Route>),
    /// The private Postgres in this directory, absolute.
    Private(PathBuf),
}

/// The database of a command that does not serve.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// Where it is.
    pub place: DatabasePlace,
    /// What secrets begin with.
    pub prefix: Prefix,
}

/// Where serve keeps its rows and its keys.
pub enum Storage {
    /// A Postgres shared by any number of replicas, and the keyring that they share.
    Shared {
        /// The way to it, credentials included.
        database: Box<Route>,
        /// Another one, past the pooler.
        direct: Option<Box<Route>>,
        /// The keyring.
        keyring: Keyring,
        /// The file that it came from, if it came from one.
        keyring_file: Option<PathBuf>,
    },
    /// A private Postgres in a directory of this machine.
    Embedded {
        /// The directory, absolute.
        data_dir: PathBuf,
        /// The keyring, when another than the directory's own was given.
        keyring: Option<Keyring>,
        /// The file that it came from, if it came from one.
        keyring_file: Option<PathBuf>,
    },
}

/// Whether serve applies migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migration {
    /// Before serving.
    AtStart,
    /// Never: `tokend migrate` does it.
    ByOperator,
}

/// Settings of `tokend serve`.
pub struct ServeSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to serve HTTP, if anywhere.
    pub http_listen: Option<SocketAddr>,
    /// Where the TLS certificate is; `None`: plaintext.
    pub tls: Option<TlsFiles>,
    /// What client certificates allow.
    pub certificates: CertificateMappings,
    /// The file that says what they allow, if there is one.
    pub config_file: Option<PathBuf>,
    /// Most connections and most calls at once on each.
    pub limits: Limits,
    /// Most connections to Postgres at once.
    pub database_connections: u32,
    /// Whether to migrate.
    pub migration: Migration,
    /// What secrets begin with.
    pub prefix: Prefix,
    /// Cost of new durable verifiers, and the most that a stored one may ask for.
    pub cost: DurableCost,
    /// Most Argon2id computations at once.
    pub hash_permits: usize,
    /// How old answers from the cache may be.
    pub bounds: Bounds,
    /// Most bytes that the cache may take.
    pub cache_bytes: u64,
    /// How often uses of tokens are written down.
    pub last_use_interval: Duration,
    /// Whether a Postgres that can lose commits in a crash is refused.
    pub require_fsync: bool,
    /// What is warned of, and how long tokens are kept after their end.
    pub retention: Retention,
    /// The collector that spans are exported to, if any.
    pub otlp_endpoint: Option<String>,
    /// Which calls' spans are exported.
    pub sampling: Sampling,
    /// What is open beside the RPCs, and to whom.
    pub ways: IntegrationsConfig,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Logging.
    pub log: LogSettings,
}

/// Settings of `tokend bootstrap`.
pub struct BootstrapSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// The keyring that all replicas share.
    pub keyring: Keyring,
    /// Cost of the durable verifier.
    pub cost: DurableCost,
    /// Logging.
    pub log: LogSettings,
}

/// Settings of `tokend migrate`.
pub struct MigrateSettings {
    /// Whether to tell only what would be done.
    pub plan: bool,
    /// The database.
    pub database: DatabaseSettings,
    /// Logging.
    pub log: LogSettings,
}

/// Settings of `tokend data …`.
pub struct DataSettings {
    /// The directory, absolute.
    pub data_dir: PathBuf,
    /// Logging.
    pub log: LogSettings,
}

/// Settings of `tokend key status`.
pub struct KeyStatusSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// The keyring whose keys are counted.
    pub keyring: Keyring,
    /// Logging.
    pub log: LogSettings,
}
