//! The configuration of a server, and why it may end other than by its shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::api::http::config::IntegrationsConfig;
use crate::api::origin::Origin;
use crate::domain::CertificateMappings;
use crate::jobs::reload::Origins;
use crate::jobs::retention::Retention;
use crate::metrics::MetricsError;
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{ConnectSettings, MigrateError};
use crate::telemetry::Sampling;
use crate::transport::tls::ServerTls;
use crate::verify::Bounds;

/// The limits of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at once; more wait in the operating system's queue.
    pub connections: usize,
    /// The most calls at once on one connection; its client waits with more.
    pub streams: u32,
    /// The most calls at once that have to wait; warm verdicts do not count.
    pub calls: usize,
    /// The most bytes of responses that are not read yet.
    pub response_memory_bytes: usize,
    /// The timeouts for peers that make no progress.
    pub timeouts: Timeouts,
}

/// The timeouts for peers that make no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the rest of a request's message.
    pub message: Duration,
    /// For an HTTP/1 request, including its head.
    pub head: Duration,
    /// For a call on an HTTP/2 connection.
    pub idle: Duration,
    /// The maximum age of a connection, a tenth more or less; `None`: unlimited.
    pub age: Option<Duration>,
    /// For the calls of a connection that has reached its age.
    pub age_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            message: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_mins(5),
            age: Some(Duration::from_mins(30)),
            age_grace: Duration::from_secs(30),
        }
    }
}

/// The configuration of a server; every value already checked.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// TLS for the listeners; `None`: plaintext.
    pub tls: Option<Arc<ServerTls>>,
    /// What client certificates allow.
    pub certificates: CertificateMappings,
    /// The limits of this replica.
    pub limits: Limits,
    /// How to connect to Postgres.
    pub database: ConnectSettings,
    /// How to connect past a pooler, for what needs sessions: migrations, and following changes.
    pub direct_database: Option<ConnectSettings>,
    /// The most connections to Postgres.
    pub database_connections: u32,
    /// Whether this process migrates the schema, or only checks it.
    pub migrate: bool,
    /// Whether a Postgres that can lose commits in a crash is refused.
    pub require_fsync: bool,
    /// The keys of the fast verifier.
    pub keyring: Arc<Keyring>,
    /// The files to read again when they are replaced.
    pub origins: Origins,
    /// The prefix of every secret.
    pub prefix: Prefix,
    /// The cost of a new durable hash; a costlier one is not computed.
    pub durable_cost: DurableCost,
    /// How many durable hashes run at once, for creation and for the fallback each.
    pub hash_permits: usize,
    /// How stale responses from the cache may be.
    pub bounds: Bounds,
    /// The most bytes of the cache.
    pub cache_bytes: u64,
    /// How often the last use of tokens is written.
    pub last_use_interval: Duration,
    /// The expiration warnings, and how long tokens are kept after their end.
    pub retention: Retention,
    /// Selects the calls whose spans are exported.
    pub sampling: Sampling,
    /// The integrations that are enabled, and for which clients.
    pub integrations: IntegrationsConfig,
    /// The origin by which browsers reach the console; `None`: the names of loopback.
    pub console_origin: Option<Origin>,
    /// The origins whose pages may show portal sessions of the console in a frame.
    pub console_embedders: Vec<Origin>,
    /// How long calls may continue after the shutdown began.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// Returns the settings by which connections are sessions: past the pooler if there is one.
    pub(super) fn direct(&self) -> &ConnectSettings {
        self.direct_database.as_ref().unwrap_or(&self.database)
    }
}

/// The sockets that a server listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics, health and the HTTP integrations.
    pub http: Option<TcpListener>,
    /// For the console.
    pub console: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(grpc: TcpListener) -> Self {
        Self { grpc, http: None, console: None }
    }
}

/// Why a server ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// This build cannot serve this database.
    #[error(transparent)]
    Database(#[from] MigrateError),
    /// The built-in contracts could not be read.
    #[error("the descriptors of the services could not be read")]
    Descriptors(#[from] prost::DecodeError),
    /// The metrics could not be created.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The task that serves a listener's connections has ended by itself.
    #[error("the {0} listener has ended; start tokend again")]
    Ended(&'static str),
}
