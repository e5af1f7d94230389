//! The one place that wires everything: store, engine, actions, jobs and the gRPC listener, and their life
//! from the first connection to the last answer. Called by `tokend serve` and by the tests.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;

use crate::actions::Actions;
use crate::ambient;
use crate::domain::CertificateMappings;
use crate::grpc::{Health, TokenApi, proto};
use crate::hashing::HashPool;
use crate::jobs::{announce, last_use, mac_refresh, purge, readiness};
use crate::listener;
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{self, MigrateError, Store};
use crate::tls::ServerTls;
use crate::verify::{Bounds, Engine, Parts};

/// The shortest and longest pause between two attempts to reach Postgres at the start.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long watches of health are left open after draining began, so that they see it.
const HEALTH_NOTICE: Duration = Duration::from_millis(200);

/// The most bytes of metadata that a call may bring.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// How often a connection that is silent is asked for a sign of life, and how long it may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last writes may take.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How much of everything one replica takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once; more wait in the operating system's queue.
    pub connections: usize,
    /// Most calls at once on one connection; its client waits with more.
    pub streams: u32,
}

/// What a server needs to know; every value already checked.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// TLS for the listener; `None`: plaintext.
    pub tls: Option<Arc<ServerTls>>,
    /// What client certificates allow.
    pub certificates: CertificateMappings,
    /// How much it takes on.
    pub limits: Limits,
    /// Where Postgres is.
    pub database: PgConnectOptions,
    /// The most connections to it.
    pub database_connections: u32,
    /// Whether this process brings the schema up to date, or only checks it.
    pub migrate: bool,
    /// Whether a Postgres that can lose commits in a crash is refused.
    pub require_fsync: bool,
    /// The keys of the fast verifier.
    pub keyring: Arc<Keyring>,
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
    /// How long calls may go on after the shutdown began.
    pub drain_timeout: Duration,
}

/// Why a server ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database is not one that this build can serve.
    #[error(transparent)]
    Database(#[from] MigrateError),
    /// The reflection service could not be built.
    #[error("the reflection service could not be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the listener failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves on `listener` until `shutdown` completes, then drains: health says `NOT_SERVING`, no new
/// connection is taken, and calls that run may end within the drain timeout.
///
/// Listens at once; until Postgres has been reached and its schema checked, calls are answered
/// `UNAVAILABLE` and health says `NOT_SERVING`.
///
/// # Errors
/// [`ServeError`]; an unreachable Postgres is waited for, not an error.
pub async fn run(
    config: ServerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let store = Store::new(config.database.clone(), config.database_connections);
    let (refresh, suggestions) = mac_refresh::queue();
    let engine = Arc::new(Engine::start(Parts {
        store: store.clone(),
        lines: store.lines(),
        keyring: Arc::clone(&config.keyring),
        prefix: config.prefix.clone(),
        hashing: HashPool::new(config.hash_permits),
        limit: config.durable_cost,
        refresh,
        bounds: config.bounds,
        cache_bytes: config.cache_bytes,
        replica: ambient::random_uuid(),
    }));
    let actions = Actions::new(
        store.clone(),
        Arc::clone(&config.keyring),
        config.prefix.clone(),
        config.durable_cost,
        HashPool::new(config.hash_permits),
    );
    let (health, health_service) = Health::new().await;
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };

    let (begin_draining, draining) = watch::channel(false);
    let mut jobs = JoinSet::new();
    jobs.spawn(mac_refresh::run(suggestions, store.clone()));
    jobs.spawn(announce::run(engine.changes(), store.lines()));
    jobs.spawn(readiness::run(Arc::clone(&engine), store.clone(), health.clone()));

    if let Some(tls) = &config.tls {
        jobs.spawn(Arc::clone(tls).watch());
    }
    let serving = Server::builder()
        .max_concurrent_streams(config.limits.streams)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(health_service)
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?)
        .add_service(TokenApi::service(
            Arc::clone(&engine),
            actions,
            config.certificates.clone(),
            draining.clone(),
        ))
        .serve_with_incoming_shutdown(
            listener::accept(listener, config.tls.clone(), config.limits.connections),
            drained(draining.clone()),
        );
    tokio::pin!(serving);

    let opening = open(&config, &store);
    tokio::pin!(opening);
    let shutdown = async move {
        shutdown.await;
        tracing::info!("draining");
    };
    tokio::pin!(shutdown);

    let opened = tokio::select! {
        opened = &mut opening => Some(opened?),
        ended = &mut serving => return Ok(ended?),
        () = &mut shutdown => None,
    };
    if opened.is_some() {
        engine.wake();
        jobs.spawn(last_use::run(Arc::clone(&engine), store.clone(), config.last_use_interval));
        jobs.spawn(purge::run(store.clone()));
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = &mut shutdown => {}
        }
    }

    jobs.abort_all();
    health.not_serving().await;
    begin_draining.send_replace(true);
    let outcome = tokio::select! {
        ended = &mut serving => ended.map_err(ServeError::from),
        () = end_watches(health) => Ok(()),
        () = tokio::time::sleep(config.drain_timeout) => {
            tracing::warn!("calls were still running at the end of the drain timeout; they are cut off");
            Ok(())
        }
    };
    let last = async {
        last_use::flush_last(&engine, &store).await;
        store.close().await;
    };
    let _ = tokio::time::timeout(LAST_WRITES, last).await;
    tracing::info!("stopped");
    outcome
}

/// Reaches Postgres, however long that takes, and opens the store once the schema is right.
async fn open(config: &ServerConfig, store: &Store) -> Result<(), MigrateError> {
    let mut pause = BACKOFF.0;
    loop {
        match prepare(config).await {
            Ok(()) => {
                store.open();
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, retry_after = ?pause, "waiting for the database");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn prepare(config: &ServerConfig) -> Result<(), MigrateError> {
    if config.require_fsync {
        store::check_durability(&config.database).await?;
    }
    if config.migrate {
        store::migrate(&config.database, &config.prefix).await
    } else {
        store::check(&config.database, &config.prefix).await
    }
}

async fn drained(mut draining: watch::Receiver<bool>) {
    // An error means that the server itself is gone.
    let _ = draining.wait_for(|begun| *begun).await;
}

/// Ends the watches of health, which would keep their connections open for ever; never completes.
async fn end_watches(mut health: Health) {
    tokio::time::sleep(HEALTH_NOTICE).await;
    health.end_watches().await;
    pending::<()>().await;
}
