//! The typed settings of each command: built by `resolve`, used by the commands. Everything is
//! parsed and allowed; nothing with a default is optional. None of these types has a `Debug`, since
//! most contain a database password or keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::values::LogFilter;
use crate::api::http::config::IntegrationsConfig;
use crate::api::origin::Origin;
use crate::domain::CertificateMappings;
use crate::jobs::retention::Retention;
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::server::Limits;
use crate::store::ConnectSettings;
use crate::telemetry::{LogFormat, Sampling};
use crate::transport::tls::TlsFiles;
use crate::verify::Bounds;

/// The log's format and filter.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// The filter.
    pub filter: LogFilter,
}

/// The database of a command that does not serve.
#[derive(Clone)]
pub enum DatabaseTarget {
    /// A Postgres that tokend does not run: how to connect to it, credentials included; past a pooler if there is one.
    Shared(Box<ConnectSettings>),
    /// The private Postgres in this directory, absolute.
    Private(PathBuf),
}

/// The database settings of a command that does not serve.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// Its location.
    pub target: DatabaseTarget,
    /// The prefix of secrets.
    pub prefix: Prefix,
}

/// Where serve keeps its rows and its keys.
pub enum Storage {
    /// A Postgres shared by any number of replicas, and the keyring that they share.
    Shared {
        /// How to connect to it, credentials included.
        database: Box<ConnectSettings>,
        /// How to connect past the pooler.
        direct: Option<Box<ConnectSettings>>,
        /// The keyring.
        keyring: Keyring,
        /// The file that the keyring was read from, if any.
        keyring_file: Option<PathBuf>,
    },
    /// A private Postgres in a directory of this machine.
    Private {
        /// The directory, absolute.
        data_dir: PathBuf,
        /// The keyring, if one other than the directory's own was given.
        keyring: Option<Keyring>,
        /// The file that the keyring was read from, if any.
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
    /// The address for gRPC.
    pub listen: SocketAddr,
    /// The address for HTTP, if it is served.
    pub http_listen: Option<SocketAddr>,
    /// Where the console is served.
    pub console: ConsoleSettings,
    /// The TLS files; `None`: plaintext.
    pub tls: Option<TlsFiles>,
    /// What client certificates allow.
    pub certificates: CertificateMappings,
    /// The file with these mappings, if there is one.
    pub config_file: Option<PathBuf>,
    /// The limits of connections, calls and memory, and the timeouts.
    pub limits: Limits,
    /// Most connections to Postgres at once.
    pub database_connections: u32,
    /// Whether to migrate.
    pub migration: Migration,
    /// The prefix of secrets.
    pub prefix: Prefix,
    /// The cost of new durable verifiers, and the most that a stored one may have.
    pub cost: DurableCost,
    /// The most Argon2id computations at once.
    pub hash_permits: usize,
    /// How stale responses from the cache may be.
    pub bounds: Bounds,
    /// The most bytes of the cache.
    pub cache_bytes: u64,
    /// How often the last use of tokens is written.
    pub last_use_interval: Duration,
    /// Whether a Postgres that can lose commits in a crash is refused.
    pub require_fsync: bool,
    /// The expiration warnings, and how long tokens are kept after their end.
    pub retention: Retention,
    /// The collector that spans are exported to, if any.
    pub otlp_endpoint: Option<String>,
    /// Selects the calls whose spans are exported.
    pub sampling: Sampling,
    /// The integrations that are enabled, and for which clients.
    pub integrations: IntegrationsConfig,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Logging.
    pub log: LogSettings,
}

/// Where the console is served.
#[derive(Debug, Clone, Default)]
pub struct ConsoleSettings {
    /// Its address; `None`: it is off.
    pub listen: Option<SocketAddr>,
    /// The origin by which browsers reach it; `None`: the names of loopback.
    pub origin: Option<Origin>,
    /// The origins whose pages may show portal sessions in a frame.
    pub embedders: Vec<Origin>,
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
    /// Whether only to print what would be done.
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
