//! The flags of the commands that use a database or serve, as clap sees them.
//!
//! Every value is optional here: `resolve` fills what is missing from the environment, the file
//! and the defaults, which the help names. No flag takes a secret; help texts are the manual.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown verbatim")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;

use super::link_flags::{ConsoleFlags, TlsFlags, TracingFlags};
use super::values::{
    CacheBytes, ConnectionAge, DatabasePooling, DrainTimeout, ExpiryWarnings, LastUseInterval, LogFilter,
    MaxStaleness, OutageGrace, ResponseMemoryBytes, TokenRetention, TrustedProxies,
};
use crate::telemetry::LogFormat;

/// Flags of `tokend serve`.
#[derive(Args)]
pub struct ServeFlags {
    #[command(flatten)]
    pub(super) shared: SharedFlags,
    #[command(flatten)]
    pub(super) cost: CostFlags,
    #[command(flatten)]
    pub(super) integrations: IntegrationFlags,
    #[command(flatten)]
    pub(super) tls: TlsFlags,
    #[command(flatten)]
    pub(super) tracing: TracingFlags,
    #[command(flatten)]
    pub(super) console: ConsoleFlags,

    /// Address to serve gRPC on, as IP:PORT [env: TOKEND_LISTEN] [default: 127.0.0.1:50051]
    #[arg(long, value_name = "IP:PORT", help_heading = "Serving")]
    pub(super) listen: Option<SocketAddr>,

    /// Address to serve HTTP on, as IP:PORT: /metrics, /livez, /readyz, /auth for gateways,
    /// /oauth2/introspect, /oauth2/revoke, and /tokenreview if --token-review is set; with TLS if gRPC has it
    /// [env: TOKEND_HTTP_LISTEN] [default: none]
    #[arg(long, value_name = "IP:PORT", help_heading = "Serving")]
    pub(super) http_listen: Option<SocketAddr>,

    /// Serve plaintext on an address that is not loopback. Secrets then cross the network unencrypted, unless
    /// something in front of tokend encrypts [env: TOKEND_INSECURE_PLAINTEXT]
    #[arg(long, help_heading = "Serving")]
    pub(super) insecure_plaintext: bool,

    /// Maximum number of connections at once; more wait until one ends [env: TOKEND_MAX_CONNECTIONS]
    /// [default: 2048]
    #[arg(long, value_name = "NUMBER", help_heading = "Serving")]
    pub(super) max_connections: Option<NonZeroU16>,

    /// Maximum number of calls at once on one connection; the client delays more [env: TOKEND_MAX_STREAMS]
    /// [default: 256]
    #[arg(long, value_name = "NUMBER", help_heading = "Serving")]
    pub(super) max_streams: Option<NonZeroU16>,

    /// Maximum number of calls at once that wait for the database or for Argon2id; more are refused. No
    /// caller gets more of them than are left for all others [env: TOKEND_MAX_CALLS] [default: 4096]
    #[arg(long, value_name = "NUMBER", help_heading = "Serving")]
    pub(super) max_calls: Option<NonZeroU16>,

    /// Maximum memory in bytes for responses until they are read, except verdicts: pages of tokens and
    /// events, changes for watchers, /metrics; more are refused. No caller gets more of it than is left for
    /// all others; at least 10485760 [env: TOKEND_RESPONSE_MEMORY_BYTES] [default: 67108864]
    #[arg(long, value_name = "BYTES", help_heading = "Serving")]
    pub(super) response_memory_bytes: Option<ResponseMemoryBytes>,

    /// How long running calls may take to finish after SIGTERM or Ctrl-C, at most 10s; a second
    /// signal ends the process at once [env: TOKEND_DRAIN_TIMEOUT] [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Serving")]
    pub(super) drain_timeout: Option<DrainTimeout>,

    /// How long a connection may last, a tenth more or less; then its client is asked to open another one
    /// (GOAWAY), so that new replicas get their share of the calls. 0s: without limit; at most 24h [env:
    /// TOKEND_MAX_CONNECTION_AGE] [default: 30m]
    #[arg(long, value_name = "DURATION", help_heading = "Serving")]
    pub(super) max_connection_age: Option<ConnectionAge>,

    /// How long the calls of such a connection may continue; then streams end with UNAVAILABLE, so that
    /// clients open them again, and other calls are cut off; at most 24h [env:
    /// TOKEND_MAX_CONNECTION_AGE_GRACE] [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Serving")]
    pub(super) max_connection_age_grace: Option<ConnectionAge>,

    /// How old a response from the cache may be: no replica admits a revoked token for longer than this, even
    /// during failures; 50ms to 60s [env: TOKEND_MAX_STALENESS] [default: 1s]
    #[arg(long, value_name = "DURATION", help_heading = "Verification")]
    pub(super) max_staleness: Option<MaxStaleness>,

    /// How much longer cached tokens, including revoked ones, are admitted while the database cannot be
    /// reached; at most 1h. 0s: such calls fail with UNAVAILABLE [env: TOKEND_OUTAGE_GRACE] [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = "Verification")]
    pub(super) outage_grace: Option<OutageGrace>,

    /// Maximum memory in bytes for cached tokens and their tables, about 400 bytes per token; at least
    /// 1048576 [env: TOKEND_CACHE_BYTES] [default: 268435456]
    #[arg(long, value_name = "BYTES", help_heading = "Verification")]
    pub(super) cache_bytes: Option<CacheBytes>,

    /// How often uses of tokens are written to the database; 100ms to 1h [env: TOKEND_LAST_USE_INTERVAL]
    /// [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Verification")]
    pub(super) last_use_interval: Option<LastUseInterval>,

    /// Directory of the private Postgres, its keyring and the first root secret; not used with a database URL
    /// [env: TOKEND_DATA_DIR] [default: `$XDG_DATA_HOME/tokend` or ~/.local/share/tokend; as root
    /// /var/lib/tokend]
    #[arg(long, value_name = "DIRECTORY", help_heading = "Database")]
    pub(super) data_dir: Option<PathBuf>,

    /// Maximum number of connections to Postgres at once [env: TOKEND_DATABASE_CONNECTIONS] [default: 16]
    #[arg(long, value_name = "NUMBER", help_heading = "Database")]
    pub(super) database_connections: Option<NonZeroU16>,

    /// Serve on a Postgres that can lose commits, including revocations, in a crash (fsync=off). For tests
    /// [env: TOKEND_ALLOW_FSYNC_OFF]
    #[arg(long, help_heading = "Database")]
    pub(super) allow_fsync_off: bool,

    /// How long before a token's expiration an expires_soon event announces it; several durations, separated
    /// by commas, 1m to 365d each [env: TOKEND_EXPIRY_WARNINGS] [default: 7d,1d]
    #[arg(long, value_name = "DURATIONS", help_heading = "Database")]
    pub(super) expiry_warnings: Option<ExpiryWarnings>,

    /// How long an expired or revoked token is kept before it is deleted; 1d to 3650d
    /// [env: TOKEND_TOKEN_RETENTION] [default: 400d]
    #[arg(long, value_name = "DURATION", help_heading = "Database")]
    pub(super) token_retention: Option<TokenRetention>,

    /// Do not apply migrations at start, because `tokend migrate` has applied them. Needs a database URL
    /// [env: TOKEND_NO_MIGRATE]
    #[arg(long, help_heading = "Database")]
    pub(super) no_migrate: bool,

    /// Maximum number of Argon2id computations at once, each of which uses --argon2-memory-kib of memory
    /// [env: TOKEND_HASH_PERMITS] [default: the number of processor cores]
    #[arg(long, value_name = "NUMBER", help_heading = "Secrets")]
    pub(super) hash_permits: Option<NonZeroU16>,
}

/// Which private Postgres a command works on, beside those with a URL.
#[derive(Args)]
pub(super) struct PrivateFlag {
    /// Use the private Postgres of `tokend serve` in this directory, also while serve runs; its keyring is
    /// used unless another one is set [env: TOKEND_DATA_DIR] [default: without a database URL, that of
    /// `tokend serve`]
    #[arg(
        long,
        value_name = "DIRECTORY",
        help_heading = "Database",
        conflicts_with_all = ["database_url", "direct_database_url", "database_pooling", "database_password_file"]
    )]
    pub(super) data_dir: Option<PathBuf>,
}

/// Flags of `tokend bootstrap`.
#[derive(Args)]
pub struct BootstrapFlags {
    #[command(flatten)]
    pub(super) shared: SharedFlags,
    #[command(flatten)]
    pub(super) private: PrivateFlag,
    #[command(flatten)]
    pub(super) cost: CostFlags,
}

/// What commands need that look at, or change, the database alone.
#[derive(Args)]
pub struct DatabaseFlags {
    #[command(flatten)]
    pub(super) shared: SharedFlags,
}

/// Flags of `tokend migrate`.
#[derive(Args)]
pub struct MigrateFlags {
    #[command(flatten)]
    pub(super) database: DatabaseFlags,

    /// Change nothing: print the migrations that the database lacks, and the locks on existing tables that
    /// each of them holds until it is done
    #[arg(long)]
    pub(super) plan: bool,
}

/// Flags of `tokend key status`.
#[derive(Args)]
pub struct KeyStatusFlags {
    #[command(flatten)]
    pub(super) shared: SharedFlags,
    #[command(flatten)]
    pub(super) private: PrivateFlag,
}

/// Flags of `tokend data …`.
#[derive(Args)]
pub struct DataFlags {
    /// TOML file of `tokend serve`, for its data-dir [env: TOKEND_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Directory of the private Postgres [env: TOKEND_DATA_DIR] [default: as of `tokend serve`]
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) data_dir: Option<PathBuf>,
}

/// What commands need that only look at secrets.
#[derive(Args)]
pub struct PrefixFlags {
    /// TOML file of `tokend serve`, for its secret-prefix [env: TOKEND_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// What secrets begin with [env: TOKEND_SECRET_PREFIX] [default: tokd]
    #[arg(long, value_name = "PREFIX")]
    pub(super) secret_prefix: Option<String>,
}

/// What is open beside the RPCs, and to whom.
#[derive(Args)]
pub(super) struct IntegrationFlags {
    /// Networks of the gateways that may name their client's address, separated by commas: in X-Forwarded-For
    /// at /auth, or as the source in Envoy's requests. Without it, gateways admit no token that is restricted
    /// to networks [env: TOKEND_TRUSTED_PROXIES] [default: none]
    #[arg(long, value_name = "NETWORKS", help_heading = "Integrations")]
    pub(super) trusted_proxies: Option<TrustedProxies>,

    /// Answer Envoy's external authorization (envoy.service.auth.v3.Authorization) on the gRPC port. Let only
    /// Envoys reach it: they send no credential of their own [env: TOKEND_EXT_AUTHZ]
    #[arg(long, help_heading = "Integrations")]
    pub(super) ext_authz: bool,

    /// The organization whose tokens gateways admit [env: TOKEND_GATEWAY_ORGANIZATION] [default: every
    /// organization]
    #[arg(long, value_name = "ID", help_heading = "Integrations")]
    pub(super) gateway_organization: Option<String>,

    /// Prefix of the headers that tell gateways whose token it is [env: TOKEND_IDENTITY_HEADER_PREFIX]
    /// [default: x-tokend-]
    #[arg(long, value_name = "PREFIX", help_heading = "Integrations")]
    pub(super) identity_header_prefix: Option<String>,

    /// Origins whose pages may call the service from a browser, with gRPC-Web on the gRPC port, separated by
    /// commas, each exactly as browsers send it, such as https://admin.example.org [env:
    /// TOKEND_GRPC_WEB_ORIGINS] [default: none; gRPC-Web is off]
    #[arg(long, value_name = "ORIGINS", help_heading = "Integrations")]
    pub(super) grpc_web_origins: Option<String>,

    /// Answer Kubernetes' TokenReview at /tokenreview of --http-listen, to callers with tokend:verify: tokens
    /// need this scope for the API server itself [env: TOKEND_TOKEN_REVIEW] [default: off]
    #[arg(long, value_name = "SCOPE", help_heading = "Integrations")]
    pub(super) token_review: Option<String>,

    /// The API server's own audiences, separated by commas: its --api-audiences, or else its
    /// --service-account-issuer. Any other audience is a scope [env: TOKEND_TOKEN_REVIEW_AUDIENCES] [default:
    /// https://kubernetes.default.svc.cluster.local]
    #[arg(long, value_name = "AUDIENCES", help_heading = "Integrations")]
    pub(super) token_review_audiences: Option<String>,
}

/// What serve has in common with the commands that prepare or inspect its database.
#[derive(Args, Default)]
pub(super) struct SharedFlags {
    /// TOML file with the same names as these flags, such as `listen = "127.0.0.1:50051"`. Flags and the
    /// environment win over it; paths in it are relative to it [env: TOKEND_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Postgres (14 or newer) to use, without a password: put a URL with a password into DATABASE_URL [env:
    /// TOKEND_DATABASE_URL, then DATABASE_URL]
    #[arg(long, value_name = "URL", help_heading = "Database")]
    pub(super) database_url: Option<String>,

    /// What a connection to --database-url is: a session of Postgres (also through a pooler in session mode),
    /// or a session for one transaction at a time (PgBouncer's pool_mode = transaction) [env:
    /// TOKEND_DATABASE_POOLING] [default: session]
    #[arg(long, value_name = "MODE", help_heading = "Database")]
    pub(super) database_pooling: Option<DatabasePooling>,

    /// The same database without the pooler, without a password: for migrations, and for following changes.
    /// Without it, a replica behind a pooler in transaction mode only polls, and does not migrate [env:
    /// TOKEND_DIRECT_DATABASE_URL] [default: none]
    #[arg(long, value_name = "URL", help_heading = "Database")]
    pub(super) direct_database_url: Option<String>,

    /// Connect to a Postgres on another host without TLS, or without verifying its certificate: others may
    /// read the password in between, and another server may answer instead [env: TOKEND_DATABASE_INSECURE]
    #[arg(long, help_heading = "Database")]
    pub(super) database_insecure: bool,

    /// File with the password of the database role on its first line, instead of one in the URL; only its
    /// owner may read it. It is read again for new connections, so that a rotated password needs no restart
    /// [env: TOKEND_DATABASE_PASSWORD_FILE] [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Database")]
    pub(super) database_password_file: Option<PathBuf>,

    /// File with the keys of the fast verifiers: one on each line as `tokend keygen` prints it, the first is
    /// primary; only its owner may read it. Instead of a file, TOKEND_KEYS may hold the same text [env:
    /// TOKEND_KEYRING] [default: the one in the data directory; none with a database URL]
    #[arg(long, value_name = "FILE", help_heading = "Secrets")]
    pub(super) keyring: Option<PathBuf>,

    /// What secrets begin with: a lower-case letter, then 1 to 15 lower-case letters or digits. The first
    /// migration fixes it permanently [env: TOKEND_SECRET_PREFIX] [default: tokd]
    #[arg(long, value_name = "PREFIX", help_heading = "Secrets")]
    pub(super) secret_prefix: Option<String>,

    /// How log lines are written to standard error [env: TOKEND_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Logging")]
    pub(super) log_format: Option<LogFormat>,

    /// Which log lines are written: error, warn, info, debug, trace, also by module as in
    /// warn,tokend=debug [env: TOKEND_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "DIRECTIVES", help_heading = "Logging")]
    pub(super) log_level: Option<LogFilter>,
}

/// What a new durable verifier costs; a stored one that costs more is refused.
#[derive(Args)]
pub(super) struct CostFlags {
    /// Memory of one Argon2id computation, in KiB [env: TOKEND_ARGON2_MEMORY_KIB]
    /// [default: 19456]
    #[arg(long = "argon2-memory-kib", value_name = "KIB", help_heading = "Secrets")]
    pub(super) memory_kib: Option<u32>,

    /// Passes of one Argon2id computation [env: TOKEND_ARGON2_ITERATIONS] [default: 2]
    #[arg(long = "argon2-iterations", value_name = "NUMBER", help_heading = "Secrets")]
    pub(super) iterations: Option<u32>,

    /// Lanes of one Argon2id computation [env: TOKEND_ARGON2_PARALLELISM] [default: 1]
    #[arg(long = "argon2-parallelism", value_name = "NUMBER", help_heading = "Secrets")]
    pub(super) parallelism: Option<u32>,
}
