//! gRPC-Web on the gRPC port, for pages in a browser. A page is allowed by its origin: others are refused,
//! and no browser reads across origins (CORS). A page authenticates by the secret it sends, never by its
//! browser's cookies or client certificate. Wraps tonic's service only where origins are configured.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, Service};

use crate::api::origin::Origin;

/// The headers that a page may send in addition to the CORS-safelisted ones.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, baggage, content-type, grpc-timeout, tokend-acting-user, tokend-acting-user-bin, traceparent, \
     tracestate, x-grpc-web, x-user-agent",
);

/// The headers that a page may read in addition to the CORS-safelisted ones.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");

/// How many seconds a browser may cache a preflight response.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// How long an HTTP/1 response may take to start, including the reading of its request: HTTP/1 has
/// no ping to detect a peer that stopped in the middle of one.
const HTTP1_TIMEOUT: Duration = Duration::from_secs(30);

/// tonic's service, also open to pages of these origins.
#[derive(Debug, Clone)]
pub struct GrpcWeb<S> {
    inner: GrpcWebService<S>,
    origins: Arc<[Origin]>,
}

impl<S> GrpcWeb<S> {
    /// Opens `service` to these origins.
    pub fn new(service: S, origins: &[Origin]) -> Self {
        Self { inner: GrpcWebLayer::new().layer(service), origins: origins.into() }
    }

    /// Returns a request's origin: `None` if it comes from no page, an error if the page is not allowed.
    fn origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, StatusCode> {
        let mut named = headers.get_all(ORIGIN).iter();
        match (named.next(), named.next()) {
            (None, _) => Ok(None),
            (Some(origin), None) if self.origins.iter().any(|known| known.0 == origin) => {
                Ok(Some(origin.clone()))
            }
            _ => Err(StatusCode::FORBIDDEN),
        }
    }
}

impl<S: NamedService> NamedService for GrpcWeb<S> {
    const NAME: &'static str = S::NAME;
}

type HttpResult = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for GrpcWeb<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = HttpResult> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <GrpcWebService<S> as Service<Request<Body>>>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let origin = match self.origin(request.headers()) {
            Ok(origin) => origin,
            Err(status) => {
                tracing::debug!("a page from an origin that is not listed");
                return Box::pin(ready(Ok(bare(status))));
            }
        };
        let Some(origin) = origin else {
            return Box::pin(in_time(request.version(), self.inner.call(request)));
        };
        if request.method() == Method::OPTIONS {
            return Box::pin(ready(Ok(preflight(origin))));
        }
        let answering = in_time(request.version(), self.inner.call(request));
        Box::pin(async move {
            let mut response = answering.await?;
            response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            Ok(readable(response, origin))
        })
    }
}

/// Bounds the time until a response starts.
async fn in_time(version: Version, answering: impl Future<Output = HttpResult>) -> HttpResult {
    if version >= Version::HTTP_2 {
        return answering.await;
    }
    let answered = tokio::time::timeout(HTTP1_TIMEOUT, answering).await;
    answered.unwrap_or_else(|_| Ok(bare(StatusCode::REQUEST_TIMEOUT)))
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Tells a browser what a page of this origin may send.
fn preflight(origin: HeaderValue) -> Response<Body> {
    let mut response = bare(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    readable(response, origin)
}

/// Lets pages of this origin read a response; `Vary` keeps caches from giving it to others.
fn readable(mut response: Response<Body>, origin: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Silent;

    impl NamedService for Silent {
        const NAME: &'static str = "silent";
    }

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<HttpResult>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_within_a_request_over_http_1_is_cut_off() {
        let mut service = GrpcWeb::new(Silent, &[]);
        let request = Request::post("/").header("content-type", "application/grpc-web+proto");
        let response = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
