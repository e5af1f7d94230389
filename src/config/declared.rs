//! The settings of serve and of the commands that use its database: each is declared here, once, and
//! nowhere else. `resolve` and `sources` ask for the values with the methods made here.
//!
//! No setting takes a secret on the command line. The help texts are the manual, also in
//! docs/configuration.md, whose tables a test compares with them.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown verbatim")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::Deserialize;

use super::ConfigError;
use super::database_url::DatabaseUrl;
use super::network_values::{ConsoleListen, TrustedProxies};
use super::precedence::Precedence;
use super::setting::{Commands, Setting, Values, relative_to, settings};
use super::values::{
    CacheBytes, ConnectionAge, DatabasePooling, DrainTimeout, ExpiryWarnings, KeyringText, LastUseInterval,
    LogFilter, MaxStaleness, OutageGrace, ResponseMemoryBytes, SampleRatio, Switch, TokenRetention,
    UsageRetention,
};
use crate::telemetry::LogFormat;

/// The settings of one command: from its flags, the environment and the file.
pub(super) type Sources<'a> = Precedence<'a, PartialSettings>;

/// What clients with a certificate of this name may do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ClientCertificate {
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) organization: Option<String>,
}

settings! {
    @extra client_certificate: Vec<ClientCertificate>;

    WithDatabase "" {
        /// TOML file with the same names as these flags, such as `listen = "127.0.0.1:50051"`. Flags and the
        /// environment win over it; paths in it are relative to it
        @skip config: PathBuf as "FILE";
    }

    Serve "Serving" {
        /// Address to serve gRPC on, as IP:PORT; [::] is every address, also on a system that has only IPv4
        listen: SocketAddr as "IP:PORT" = "127.0.0.1:50051";

        /// Address to serve HTTP on, as IP:PORT: /metrics, /livez, /readyz, /auth for gateways,
        /// /oauth2/introspect, /oauth2/revoke, and /tokenreview if --token-review is set; with TLS if gRPC has it
        http_listen: SocketAddr as "IP:PORT";

        /// Serve plaintext on an address that is not loopback. Secrets then cross the network unencrypted,
        /// unless something in front of tokend encrypts
        insecure_plaintext: Switch;

        /// The server's certificate, then its intermediates, PEM. Serves TLS 1.3 and 1.2; the files are read
        /// again when they change
        tls_certificate: PathBuf as "FILE" else "none: plaintext";

        /// The certificate's private key, PEM; only its owner may read it
        tls_key: PathBuf as "FILE";

        /// CAs of client certificates, PEM. The --config file says what a certificate's name allows, as
        /// [[client-certificate]] with name (and its kind), scopes and organization
        tls_client_ca: PathBuf as "FILE";

        /// Lists of revoked client certificates (CRLs), PEM, one for each CA that issues client certificates.
        /// A certificate is refused if its CA has no list here or an expired one. Read again when they
        /// change, which ends the connections whose certificates are revoked
        tls_client_crl: PathBuf as "FILE";

        /// Maximum number of connections at once; more wait until one ends
        max_connections: NonZeroU16 as "NUMBER" = "2048";

        /// Maximum number of concurrent calls (HTTP/2 streams) on one connection; the client queues the rest
        max_streams: NonZeroU16 as "NUMBER" = "256";

        /// Maximum number of calls at once that wait for the database or for Argon2id; more are refused. No
        /// caller gets more of them than are left for all others
        max_calls: NonZeroU16 as "NUMBER" = "4096";

        /// Maximum memory in bytes for responses until they are read, except verdicts: pages of tokens and
        /// events, changes for watchers, /metrics; more are refused. No caller gets more of it than is left
        /// for all others; at least 10485760
        response_memory_bytes: ResponseMemoryBytes as "BYTES" = "67108864";

        /// How long a connection may last, a tenth more or less; then its client is asked to open another one
        /// (GOAWAY), so that new replicas get their share of the calls. 0s: without limit; at most 24h
        max_connection_age: ConnectionAge as "DURATION" = "30m";

        /// How long the calls of such a connection may continue; then streams end with UNAVAILABLE, so that
        /// clients open them again, and other calls are cut off; at most 24h
        max_connection_age_grace: ConnectionAge as "DURATION" = "30s";

        /// How long running calls may take to finish after SIGTERM or Ctrl-C, at most 10s; a second
        /// signal ends the process at once
        drain_timeout: DrainTimeout as "DURATION" = "10s";
    }

    Serve "Console" {
        /// Address to serve the console on, the pages for people, as IP:PORT, or off; with TLS if gRPC has it.
        /// If the port is taken, the log says so and the rest is served
        console_listen: ConsoleListen as "IP:PORT" else "127.0.0.1:50080 with the private Postgres, else off";

        /// Origin by which browsers reach the console, exactly as they send it, such as
        /// https://tokens.example.org; it answers by no other name. Needed if the console listens on an
        /// address that is not loopback
        console_origin: String as "ORIGIN" else "the names of loopback";

        /// Origins whose pages may show portal sessions in a frame, separated by commas, each exactly as browsers
        /// send it, such as https://app.example.org. Needs a console that browsers reach by TLS or on loopback
        console_embed_origins: String as "ORIGINS" else "none";
    }

    Serve "Verification" {
        /// How old a response from the cache may be: no replica admits a revoked token for longer than this,
        /// even during failures; 50ms to 60s
        max_staleness: MaxStaleness as "DURATION" = "1s";

        /// How much longer cached tokens, including revoked ones, are admitted while the database cannot be
        /// reached; at most 1h. 0s: such calls fail with UNAVAILABLE
        outage_grace: OutageGrace as "DURATION" = "0s";

        /// Maximum memory in bytes for cached tokens and their tables, about 400 bytes per token; at least
        /// 1048576
        cache_bytes: CacheBytes as "BYTES" = "268435456";

        /// How often uses of tokens are written to the database; 100ms to 1h
        last_use_interval: LastUseInterval as "DURATION" = "30s";
    }

    Serve "Integrations" {
        /// Networks of the gateways, and of proxies before the console, that may name their client's address,
        /// separated by commas, none wider than /8: in X-Forwarded-For, or as the source in Envoy's requests.
        /// Without it, gateways admit no token that is restricted to networks
        trusted_proxies: TrustedProxies as "NETWORKS";

        /// Answer Envoy's external authorization (envoy.service.auth.v3.Authorization) on the gRPC port. Let
        /// only Envoys reach it: they send no credential of their own
        ext_authz: Switch;

        /// The organization whose tokens gateways admit
        gateway_organization: String as "ID" else "every organization";

        /// Prefix of the headers that tell gateways whose token it is
        identity_header_prefix: String as "PREFIX" = "x-tokend-";

        /// Origins whose pages may call the service from a browser, with gRPC-Web on the gRPC port, separated
        /// by commas, each exactly as browsers send it, such as https://admin.example.org
        grpc_web_origins: String as "ORIGINS" else "none; gRPC-Web is off";

        /// Answer Kubernetes' TokenReview at /tokenreview of --http-listen, to callers with tokend:verify:
        /// tokens need this scope for the API server itself
        token_review: String as "SCOPE" else "off";

        /// The API server's own audiences, separated by commas: its --api-audiences, or else its
        /// --service-account-issuer. Any other audience is a scope
        token_review_audiences: String as "AUDIENCES" = "https://kubernetes.default.svc.cluster.local";
    }

    WithDatabase "Database" {
        /// Postgres (14 or newer) to use; without it, serve starts a private one. The flag takes no password:
        /// put a URL with a password into DATABASE_URL, or into a --config file that only its owner may read
        database_url: DatabaseUrl as "URL" then "DATABASE_URL";

        /// What a connection to --database-url is: a session of Postgres (also through a pooler in session
        /// mode), or a session for one transaction at a time (PgBouncer's pool_mode = transaction)
        database_pooling: DatabasePooling as "MODE" = "session";

        /// The same database without the pooler, without a password: for migrations, and for following
        /// changes. Without it, a replica behind a pooler in transaction mode only polls, and does not migrate
        direct_database_url: DatabaseUrl as "URL";

        /// Connect to a Postgres on another host without TLS, or without verifying its certificate: others may
        /// read the password in between, and another server may answer instead
        database_insecure: Switch;

        /// File with the password of the database role on its first line, instead of one in the URL; only its
        /// owner may read it. It is read again for new connections, so that a rotated password needs no
        /// restart
        database_password_file: PathBuf as "FILE";
    }

    Serve "Database" {
        /// Directory of the private Postgres, its keyring and the first root secret; not used with a database
        /// URL
        data_dir: PathBuf as "DIRECTORY"
            else "`$XDG_DATA_HOME/tokend` or ~/.local/share/tokend; as root /var/lib/tokend";

        /// Maximum number of connections to Postgres at once, 1 to 65535; at least three are used
        database_connections: NonZeroU16 as "NUMBER" = "16";

        /// Serve on a Postgres that can lose commits, including revocations, in a crash (fsync=off). For tests
        allow_fsync_off: Switch;

        /// How long before a token's expiration an expires_soon event announces it, once each, at that time
        /// or within a tenth of it; several durations, separated by commas, 1m to 365d each
        expiry_warnings: ExpiryWarnings as "DURATIONS" = "7d,1d";

        /// How long an expired or revoked token is kept before it is deleted; 1d to 3650d
        token_retention: TokenRetention as "DURATION" = "400d";

        /// How long verifications are kept by hour; 4d to 3650d
        usage_hours_retention: UsageRetention as "DURATION" = "31d";

        /// How long verifications are kept by day; 4d to 3650d
        usage_days_retention: UsageRetention as "DURATION" = "400d";

        /// Do not apply migrations at start, because `tokend migrate` has applied them. Needs a database URL
        no_migrate: Switch;
    }

    WithDatabase "Secrets" {
        /// File with the keys of the fast verifiers: one on each line as `tokend keygen` prints it, the first
        /// is primary; only its owner may read it
        keyring: PathBuf as "FILE" else "the one in the data directory; none with a database URL";

        /// What secrets begin with: a lower-case letter, then 1 to 15 lower-case letters or digits. The first
        /// migration fixes it permanently
        secret_prefix: String as "PREFIX" = "tokd";
    }

    Variable "Secrets" {
        /// What such a file contains, instead of a file
        @skip keys: KeyringText as "KEYS";
    }

    Hashing "Secrets" {
        /// Memory of one Argon2id computation, in KiB
        argon2_memory_kib: u32 as "KIB" = "19456";

        /// Passes of one Argon2id computation
        argon2_iterations: u32 as "NUMBER" = "2";

        /// Lanes of one Argon2id computation
        argon2_parallelism: u32 as "NUMBER" = "1";
    }

    Serve "Secrets" {
        /// Maximum number of Argon2id computations at once, for creation and for the fallback each; each uses
        /// --argon2-memory-kib of memory
        hash_permits: NonZeroU16 as "NUMBER" else "the number of processor cores";
    }

    WithDatabase "Logging" {
        /// How log lines are written to standard error: text or json
        log_format: LogFormat as "FORMAT" = "text";

        /// Which log lines are written: error, warn, info, debug, trace, also by module as in
        /// warn,tokend=debug
        log_level: LogFilter as "DIRECTIVES" = "info";
    }

    Serve "Logging" {
        /// OpenTelemetry collector to export spans to over OTLP (gRPC), as https://HOST:PORT, on this machine
        /// also http://HOST:PORT. Exports the spans that callers sample with their traceparent, and some of
        /// the others. The collector's certificate must be from a CA that the system trusts, or from one in
        /// the file that SSL_CERT_FILE names
        otlp_endpoint: String as "URL";

        /// Send spans to a collector on another host in plaintext
        otlp_insecure: Switch;

        /// The part of the calls without a traceparent that is exported, 0 to 1
        trace_sample_ratio: SampleRatio as "RATIO" = "0.01";
    }
}
