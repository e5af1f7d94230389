//! The connections of a listener that speaks HTTP/1: reads each request to its end, within the limits, and has a
//! router answer it. Used by the HTTP listener and the console. Probes are answered even when all connection
//! permits are taken.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming as Arriving;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::admission::received::Received;
use crate::admission::request_memory::{ConnectionRequests, RequestLimiter};
use crate::admission::request_reader::{ReadError, Whole};
use crate::api::limits::{MAX_HEADER_BYTES, MAX_REQUEST_BYTES};
use crate::auth::peer::Peer;
use crate::transport::connection::{Connection, ended_by};
use crate::transport::listener::Incoming;

/// What adds headers to every response.
pub(crate) type Seal = Arc<dyn Fn(&mut HeaderMap) + Send + Sync>;

/// How requests are read and answered.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) router: Router,
    /// Memory for requests that have not arrived whole.
    pub(crate) requests: RequestLimiter,
    /// Bounds the wait for a request's head, and for the next request.
    pub(crate) head: Duration,
    /// The paths that are answered on connections beyond the limit.
    pub(crate) probes: &'static [&'static str],
    /// Whether the body of a request with this method and path is read.
    pub(crate) takes_body: fn(&Method, &str) -> bool,
    pub(crate) seal: Seal,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// Serves until dropped.
pub(crate) async fn serve(mut incoming: Incoming, listener: Listener) {
    while let Some(mut connection) = incoming.next().await {
        let mut until = connection.cutoff();
        let answering = ConnectionService {
            listener: listener.clone(),
            requests: listener.requests.connection(connection.address().ip(), connection.authenticated()),
            peer: Peer::from(&connection),
            probes_only: until.is_some(),
            due: connection.due(),
        };
        tokio::spawn(async move {
            ended_by(until.as_mut(), answering.serve(connection)).await;
        });
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct ConnectionService {
    listener: Listener,
    requests: Arc<ConnectionRequests>,
    peer: Peer,
    /// Whether the connection was accepted beyond the limit, for probes alone.
    probes_only: bool,
    /// When the connection is due to close: the first response after that is its last.
    due: Option<Instant>,
}

impl ConnectionService {
    async fn serve(self, mut connection: Connection) {
        let (address, last, head) = (self.peer.address, self.probes_only, self.listener.head);
        let service = service_fn(move |request| {
            let answering = self.clone();
            async move {
                let (due, seal) = (answering.due, Arc::clone(&answering.listener.seal));
                let mut response = answering.answer(request).await;
                seal(response.headers_mut());
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
        if self.probes_only && !self.listener.probes.contains(&path) {
            return unavailable("all connections are in use\n");
        }
        let takes_body = (self.listener.takes_body)(request.method(), path);
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
        let Ok(response) = self.listener.router.oneshot(Request::from_parts(parts, body)).await;
        drop(until_answered);
        response
    }

    /// Reads a request to its end.
    async fn read(&self, parts: Box<Parts>, body: Arriving) -> Result<(Box<Parts>, Whole), ReadError> {
        let check = |received: &Received| {
            if received.len() > MAX_REQUEST_BYTES {
                Err(ReadError::TooLong(MAX_REQUEST_BYTES))
            } else {
                Ok(())
            }
        };
        let reading = pin!(Arc::clone(&self.requests).read(parts, Received::default(), body, check));
        let read = tokio::time::timeout(self.requests.read_timeout(), reading).await;
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

/// Answers that something is not possible now.
pub(crate) fn unavailable(why: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
}
