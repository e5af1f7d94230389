//! What a server needs to know, and why it may end other than by its shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::api::http::config::IntegrationsConfig;
use crate::domain::CertificateMappings;
use crate::jobs::reload::Origins;
use crate::jobs::retention::Retention;
use crate::metrics::MetricsError;
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{MigrateError, Route};
use crate::telemetry::Sampling;
use crate::transport::tls::ServerTls;
use crate::verify::Bounds;

/// How much of everything one replica takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once; more wait in the operating system's queue.
    pub connections: usize,
    /// Most calls at once on one connection; its client waits with more.
    pub streams: u32,
    /// Most calls at once that take waiting; warm verdicts take none.
    pub calls: usize,
    /// Most bytes that long answers take until they are read.
    pub response_memory_bytes: usize,
    /// How long whoever does not go on is waited for.
    pub timeouts: Timeouts,
}

/// How long whoever does not go on is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the rest of a request's message.
    pub message: Duration,
    /// For a request of HTTP/1, its head included.
    pub head: Duration,
    /// For a call on a connection of HTTP/2.
    pub idle: Duration,
    /// For the end of a connection, a tenth more or less; `None`: for ever.
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

/// What a server needs to know; every value already checked.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// TLS for the listeners; `None`: plaintext.
    pub tls: Option<Arc<ServerTls>>,
    /// What client certificates allow.
    pub certificates: CertificateMappings,
    /// How much it takes on.
    pub limits: Limits,
    /// The way to Postgres.
    pub database: Route,
    /// A way past the pooler, for what needs sessions: migrations, and following changes.
    pub direct_database: Option<Route>,
    /// The most connections to it.
    pub database_connections: u32,
    /// Whether this process brings the schema up to date, or only checks it.
    pub migrate: bool,
    /// Whether a Postgres that can lose commits in a crash is refused.
    pub require_fsync: bool,
    /// The keys of the fast verifier.
    pub keyring: Arc<Keyring>,
    /// Where to read again what may be replaced.
    pub origins: Origins,
    /// How every secret begins.
    pub prefix: Prefix,
    /// What a new durable hash costs; a costlier one is not computed.
    pub durable_cost: DurableCost,
    /// How many durable hashes run at once, for creation and for the fallback each.
    pub hash_permits: usize,
    /// How old answers from the cache may be.
    pub bounds: Bounds,
    /// How large the cache may be, in bytes.
    pub cache_bytes: u64,
    /// How often it is written down which tokens were used.
    pub last_use_interval: Duration,
    /// What is warned of, and how long tokens are kept after their end.
    pub retention: Retention,
    /// Which calls' spans are exported.
    pub sampling: Sampling,
    /// What is open beside the RPCs, and to whom.
    pub ways: IntegrationsConfig,
    /// How long calls may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// Returns the way on which connections are sessions, if there is one.
    pub(super) fn direct(&self) -> &Route {
        self.direct_database.as_ref().unwrap_or(&self.database)
    }
}

/// Where a server listens.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics, health and the ways in that come over HTTP.
    pub http: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(grpc: TcpListener) -> Self {
        Self { grpc, http: None }
    }
}

/// Why a server ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database is not one that this build can serve.
    #[error(transparent)]
    Database(#[from] MigrateError),
    /// The contracts that are built in could not be read.
    #[error("the descriptors of the services could not be read")]
    Descriptors(#[from] prost::DecodeError),
    /// The metrics could not be made.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// What serves a listener's connections has ended by itself.
    #[error("the {0} listener has ended; start tokend again")]
    Ended(&'static str),
}
