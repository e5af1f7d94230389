//! The HTTP listener: metrics and health for clients without gRPC, and the HTTP integrations. Built
//! by the server. Its own pages need no caller: they show no token and no user. Probes are answered
//! even when all connection permits are taken.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming as Arriving;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::BytesMut;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::integrations::Integrations;
use super::router;
use crate::admission::request_memory::{ConnectionRequests, RequestLimiter};
use crate::admission::request_reader::{ReadError, Whole};
use crate::admission::response_memory::{ResponseMemory, reserved_bytes};
use crate::api::grpc::{MAX_HEADER_BYTES, MAX_REQUEST_BYTES};
use crate::api::health::Health;
use crate::auth::peer::Peer;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry;
use crate::transport::connection::{Connection, ended_by};
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
pub async fn serve(
    mut incoming: Incoming,
    sources: Sources,
    integrations: Arc<Integrations>,
    head: Duration,
) {
    let requests = sources.requests.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(sources)
        .merge(router::routes(integrations));
    while let Some(mut connection) = incoming.next().await {
        let mut until = connection.until();
        let answering = ConnectionService {
            router: router.clone(),
            requests: requests.connection(connection.address().ip(), connection.known()),
            peer: Peer::from(&connection),
            probes_only: until.is_some(),
            due: connection.due(),
        };
        tokio::spawn(async move {
            ended_by(until.as_mut(), answering.serve(connection, head)).await;
        });
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct ConnectionService {
    router: Router,
    requests: Arc<ConnectionRequests>,
    peer: Peer,
    /// Whether the connection was accepted beyond the limit, for probes alone.
    probes_only: bool,
    /// When the connection is due to close: the first response after that is its last.
    due: Option<Instant>,
}

impl ConnectionService {
    async fn serve(self, mut connection: Connection, head: Duration) {
        let (address, last) = (self.peer.address, self.probes_only);
        let service = service_fn(move |request| {
            let answering = self.clone();
            async move {
                let due = answering.due;
                let mut response = answering.answer(request).await;
                // Not closed between two requests: the next one may already be on its way.
                if due.is_some_and(|due| due <= Instant::now()) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let served = Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(MAX_HEADER_BYTES as usize)
            .keep_alive(!last)
            .serve_connection(TokioIo::new(&mut connection), service)
            .await;
        match served {
            Ok(()) => connection.linger().await,
            Err(error) => {
                tracing::debug!(%address, error = &error as &dyn std::error::Error, "a connection failed");
                if error.is_parse_too_large() {
                    connection.linger().await;
                }
            }
        }
    }

    async fn answer(self, request: Request<Arriving>) -> Response {
        let path = request.uri().path();
        if self.probes_only && !PROBES.contains(&path) {
            return unavailable("all connections are in use\n");
        }
        let takes_body = !HEADS_ALONE.contains(&path) && !path.starts_with(router::BEFORE_PATH);
        let (mut parts, arriving) = request.into_parts();
        let mut until_answered = None;
        let body = if takes_body {
            match self.read(Box::new(parts), arriving).await {
                Err(error) => return unread(&error),
                Ok((read, Whole { bytes, reservation })) => {
                    parts = *read;
                    until_answered = reservation;
                    Body::from(bytes)
                }
            }
        } else {
            Body::empty()
        };
        parts.extensions.insert(ConnectInfo(self.peer.clone()));
        let Ok(response) = self.router.oneshot(Request::from_parts(parts, body)).await;
        drop(until_answered);
        response
    }

    /// Reads a request to its end.
    async fn read(&self, parts: Box<Parts>, body: Arriving) -> Result<(Box<Parts>, Whole), ReadError> {
        let check = |received: &[u8]| {
            if received.len() > MAX_REQUEST_BYTES {
                Err(ReadError::TooLong(MAX_REQUEST_BYTES))
            } else {
                Ok(())
            }
        };
        let reading = pin!(Arc::clone(&self.requests).read(parts, BytesMut::new(), body, check));
        let read = tokio::time::timeout(self.requests.patience(), reading).await;
        read.unwrap_or(Err(ReadError::TooLate))
    }
}

/// Returns the response to a request that was not read to its end; the connection ends with it.
fn unread(error: &ReadError) -> Response {
    let why = format!("{error}\n");
    let mut response = match error {
        ReadError::TooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, why).into_response(),
        ReadError::TooLate | ReadError::Body(_) => (StatusCode::REQUEST_TIMEOUT, why).into_response(),
        ReadError::Refused(_) => unavailable(why),
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
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
            .reserve_set_aside(ClientKey::Peer(Some(peer.address.ip())), text.len())
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

fn unavailable(why: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
}
