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

use crate::domain::FieldError;

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

/// The origin of a page as its browser sends it (RFC 6454): scheme, host, and port unless it is the
/// scheme's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// Parses an origin exactly as browsers send it.
    ///
    /// # Errors
    /// No browser sends this text, or only sandboxed pages and files do (`null`).
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        const NONE: FieldError = FieldError::Rule(
            "must be https:// or http://, a host in lower case, and a port unless it is the scheme's \
             default; nothing after it, and no wildcard",
        );
        let (own_port, authority) = match text.split_once("://") {
            Some(("https", authority)) => ("443", authority),
            Some(("http", authority)) => ("80", authority),
            _ => return Err(NONE),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within the brackets of an IPv6 address.
            Some((_, rest)) if rest.ends_with(']') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let named =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._[]:".contains(&byte);
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let known =
            !host.is_empty() && host.bytes().all(named) && (bracketed || !host.contains([':', '[', ']']));
        let placed = port.is_none_or(|port| {
            port != own_port && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
        });
        if !known || !placed {
            return Err(NONE);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| NONE)
    }

    /// Returns `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.0.as_bytes().starts_with(b"https:") { "https" } else { "http" }
    }

    /// Returns whether the host is a name of loopback, or an address of it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let authority = self.authority();
        let host = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let host = host.map_or(authority, |(host, _)| host);
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || host.ends_with(".localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Returns the host, and the port if it is not the scheme's default.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.split_once("://")).map_or("", |(_, authority)| authority)
    }
}

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

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in [
            "https://admin.example.org",
            "http://localhost:5173",
            "https://127.0.0.1:8443",
            "http://[::1]",
            "http://[2001:db8::1]:8080",
            "http://admin.example.org:443",
        ] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "admin.example.org",
            "file://",
            "https://",
            "https://*.example.org",
            "https://Admin.example.org",
            "https://admin.example.org/",
            "https://admin.example.org:443",
            "http://admin.example.org:80",
            "https://admin.example.org:08443",
            "https://admin.example.org:99999",
            "https://admin.example.org:",
            "https://ada@admin.example.org",
            "https://a:b:1",
            "https://bücher.example",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

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
