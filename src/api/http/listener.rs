//! The HTTP listener: metrics and health for clients without gRPC, and the HTTP integrations. Built
//! by the server. Its own pages need no caller: they show no token and no user.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::connections::{self, Listener, unavailable};
use super::integrations::Integrations;
use super::router;
use crate::admission::request_memory::RequestLimiter;
use crate::admission::response_memory::{ResponseMemory, reserved_bytes};
use crate::api::health::Health;
use crate::auth::peer::Peer;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry;
use crate::transport::listener::Incoming;
use crate::verify::{ClientKey, Engine};

/// The content type of Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// The paths of probes.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// The paths whose requests are read without a body.
const HEADS_ALONE: [&str; 4] = ["/livez", "/readyz", "/metrics", "/auth"];

/// The sources of the pages.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Sampled for its sizes and ages.
    pub engine: Arc<Engine>,
    /// Sampled for its connections.
    pub store: Store,
    /// Whether Verify can be answered.
    pub health: Health,
    /// Memory for responses that are not read at once.
    pub response_memory: Arc<ResponseMemory>,
    /// Memory for requests that have not arrived whole.
    pub requests: RequestLimiter,
}

/// Serves until dropped. `head` bounds the wait for a request's head, and for the next request.
pub async fn serve(incoming: Incoming, sources: Sources, integrations: Arc<Integrations>, head: Duration) {
    let requests = sources.requests.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(sources)
        .merge(router::routes(integrations));
    let listener = Listener { router, requests, head, probes: &PROBES, takes_body, seal: Arc::new(|_| {}) };
    connections::serve(incoming, listener).await;
}

fn takes_body(_: &Method, path: &str) -> bool {
    !HEADS_ALONE.contains(&path) && !path.starts_with(router::BEFORE_PATH)
}

async fn metrics(State(sources): State<Sources>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    sources.metrics.engine.sample(&sources.engine.sample());
    let (used, idle) = sources.store.connections();
    sources.metrics.work.sample_pool(used, idle);
    let (exported, lost) = telemetry::take_export_counts();
    sources.metrics.work.spans(exported, lost);
    sources.metrics.work.response_memory.sample(sources.response_memory.taken());
    sources.metrics.work.requests.sample(sources.requests.taken());
    match sources.metrics.render() {
        Ok(text) => match sources
            .response_memory
            .reserve_set_aside(ClientKey::peer(Some(peer.address.ip())), text.len())
        {
            Ok(reservation) => {
                let text = reserved_bytes(&text, vec![reservation]);
                ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()
            }
            Err(error) => unavailable(format!("{error}\n")),
        },
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(sources): State<Sources>) -> Response {
    if sources.health.is_serving() {
        match sources.health.concern() {
            None => "ok\n".into_response(),
            Some(concern) => format!("ok, but no new connection to the database can be opened: {concern}\n")
                .into_response(),
        }
    } else {
        unavailable(format!("not serving: {}\n", sources.health.reason()))
    }
}
