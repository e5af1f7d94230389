//! The HTTP listener: metrics and health for machines that speak no gRPC, and the ways in that come over HTTP.
//! Built by the server. Its own pages need no caller: what they show names no token and no user.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::limit::ConcurrencyLimitLayer;

use crate::grpc::Health;
use crate::listener::{Incoming, Peer};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry;
use crate::unread::{Unread, holding};
use crate::verify::{Engine, Share};
use crate::ways::{self, Ways};

/// What Prometheus's text format is called.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// Requests for pages at once; more wait.
const MOST_AT_ONCE: usize = 64;

/// What the pages are made of.
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
    /// Room for what is not read at once.
    pub unread: Arc<Unread>,
}

/// Serves until it is dropped.
pub async fn serve(incoming: Incoming, sources: Sources, ways: Arc<Ways>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(ConcurrencyLimitLayer::new(MOST_AT_ONCE))
        .with_state(sources)
        .merge(ways::routes(ways));
    let service = router.into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(incoming, service).await {
        tracing::error!(%error, "the HTTP listener ended");
    }
}

async fn metrics(State(sources): State<Sources>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    sources.metrics.engine.sample(&sources.engine.sample());
    let (used, idle) = sources.store.connections();
    sources.metrics.work.sample_pool(used, idle);
    let (exported, lost) = telemetry::take_export_counts();
    sources.metrics.work.spans(exported, lost);
    sources.metrics.work.unread.sample(sources.unread.taken());
    match sources.metrics.render() {
        Ok(text) => match sources.unread.reserved_room(Share::Peer(Some(peer.address.ip())), text.len()) {
            Ok(room) => {
                let text = holding(&text, vec![room]);
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
        "ok\n".into_response()
    } else {
        unavailable(format!("not serving: {}\n", sources.health.reason()))
    }
}

fn unavailable(why: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
}
