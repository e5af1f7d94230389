//! The composition root: builds store, engine, actions, jobs and listeners, and runs them from
//! the first connection to the last response. Called by `tokend serve` and by the tests.

use std::future::pending;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

mod config;
mod console;
mod opening;
mod readiness;
mod running;
mod wire;

pub use config::{Limits, Listeners, ServeError, ServerConfig, Timeouts};

use self::running::Running;
use self::wire::{Wired, wire};
use crate::admission::request_memory::RequestLimiter;
use crate::api::console::Site;
use crate::api::grpc::ConnectionLimits;
use crate::api::http::integrations::Integrations;
use crate::api::{self, grpc, http};
use crate::metrics::Metrics;
use crate::transport::listener::{self, Incoming, OverLimit};
use crate::transport::tls::Protocol;

/// Serves until `shutdown` completes, then drains: health says `NOT_SERVING`, no new
/// connection is taken, and calls that run may end within the drain timeout.
///
/// Listens at once; until Postgres has been reached and its schema checked, calls are answered
/// `UNAVAILABLE` and health says `NOT_SERVING`.
///
/// # Errors
/// [`ServeError`]; an unreachable Postgres is waited for, not an error.
pub async fn run(
    config: ServerConfig,
    listeners: impl Into<Listeners>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let Listeners { grpc, http, console } = listeners.into();
    let site = console.as_ref().map(|listener| console::site(&config, listener));
    let Wired { mut running, draining, calls, integrations, requests } = wire(&config, site.as_ref())?;
    let accepting = Accepting { config: &config, requests, metrics: Arc::clone(&running.metrics) };
    // Not among the jobs: they continue to serve while calls are drained.
    let mut serving_http = JoinSet::new();
    if let Some(listener) = http {
        serving_http.spawn(serve_http(&accepting, listener, &running, Arc::clone(&integrations)));
    }
    if let Some((listener, site)) = console.zip(site) {
        serving_http.spawn(serve_console(&accepting, listener, &running, integrations, site));
    }
    let incoming = accepting.accept(grpc, Protocol::Grpc, OverLimit::Wait);
    let serving = grpc::serve(incoming, calls, connection_limits(&config), draining.wait());
    tokio::pin!(serving);

    let ended = async {
        tokio::select! {
            () = &mut serving => "gRPC",
            name = ended(&mut serving_http) => name,
        }
    };
    serve(&mut running, &config, ended, shutdown).await?;

    tracing::info!("draining");
    running.drain();
    tokio::select! {
        () = &mut serving => {}
        () = tokio::time::sleep(config.drain_timeout) => {
            tracing::warn!("calls were still running at the end of the drain timeout; they are cut off");
        }
    }
    running.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the database, then runs the jobs that need it, until `shutdown` completes. `ended` completes with the name
/// of a listener that ends before.
async fn serve(
    running: &mut Running,
    config: &ServerConfig,
    ended: impl Future<Output = &'static str>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let opening = opening::open(config, running.store.clone(), running.health.clone());
    tokio::pin!(ended, shutdown);
    tokio::select! {
        opened = opening => opened?,
        name = &mut ended => return Err(ServeError::Ended(name)),
        () = &mut shutdown => return Ok(()),
    }
    running.begin(config);
    tokio::select! {
        name = ended => Err(ServeError::Ended(name)),
        () = shutdown => Ok(()),
    }
}

/// Accepts the connections of all listeners.
struct Accepting<'a> {
    config: &'a ServerConfig,
    requests: RequestLimiter,
    metrics: Arc<Metrics>,
}

impl Accepting<'_> {
    fn accept(&self, listener: TcpListener, protocol: Protocol, over_limit: OverLimit) -> Incoming {
        let limits = &self.config.limits;
        let tls = self.config.tls.clone().map(|tls| (tls, protocol));
        let limits = listener::Limits {
            most: limits.connections,
            idle: limits.timeouts.idle,
            age: limits.timeouts.age,
            over_limit,
        };
        listener::accept(listener, tls, limits, &self.requests, Arc::clone(&self.metrics))
    }
}

/// Serves metrics, probes and the integrations; returns its name if it ends.
fn serve_http(
    accepting: &Accepting<'_>,
    listener: TcpListener,
    running: &Running,
    integrations: Arc<Integrations>,
) -> impl Future<Output = &'static str> + Send + use<> {
    let incoming = accepting.accept(listener, Protocol::Http, OverLimit::Probes);
    let sources = http::listener::Sources {
        metrics: Arc::clone(&running.metrics),
        engine: Arc::clone(&running.engine),
        store: running.store.clone(),
        health: running.health.clone(),
        response_memory: Arc::clone(&integrations.context.response_memory),
        requests: accepting.requests.clone(),
    };
    let head = accepting.config.limits.timeouts.head;
    async move {
        http::listener::serve(incoming, sources, integrations, head).await;
        "HTTP"
    }
}

/// Serves the console; returns its name if it ends.
fn serve_console(
    accepting: &Accepting<'_>,
    listener: TcpListener,
    running: &Running,
    integrations: Arc<Integrations>,
    site: Site,
) -> impl Future<Output = &'static str> + Send + use<> {
    let followed = (Arc::clone(&running.hub), Arc::clone(&running.keyring));
    let sessions = Arc::clone(&running.sessions);
    let console = console::build(accepting.config, sessions, integrations, site, followed);
    let incoming = accepting.accept(listener, Protocol::Http, OverLimit::Wait);
    let requests = accepting.requests.clone();
    let head = accepting.config.limits.timeouts.head;
    async move {
        api::console::listener::serve(incoming, console, requests, head).await;
        "console"
    }
}

/// Returns the limits of connections to the gRPC port.
fn connection_limits(config: &ServerConfig) -> ConnectionLimits {
    ConnectionLimits {
        streams: config.limits.streams,
        // Browsers use HTTP/1 where there is no TLS.
        http1: !config.integrations.web_origins.is_empty(),
        head: config.limits.timeouts.head,
        age_grace: config.limits.timeouts.age_grace,
    }
}

/// Waits for a task that never ends by itself, and returns its name; never completes if there is none.
async fn ended(tasks: &mut JoinSet<&'static str>) -> &'static str {
    match tasks.join_next().await {
        Some(ended) => ended.unwrap_or("HTTP"),
        None => pending().await,
    }
}
