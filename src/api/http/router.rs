//! The paths of the integrations on the HTTP listener: reads requests, writes responses. No cache
//! may store a response.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};

use super::config::TokenReviewConfig;
use super::gate::Admission;
use super::integrations::Integrations;
use super::limit_headers::Limits;
use super::refusal::{Refusal, ResponseParts};
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::auth::peer::Peer;
use crate::domain::access::denial::plain;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BASIC: HeaderValue = HeaderValue::from_static(r#"Basic realm="tokend""#);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The path prefix of a gateway that puts its own path before its client's.
pub(crate) const BEFORE_PATH: &str = "/auth/";

/// Returns the routes of all HTTP integrations.
pub(super) fn routes(integrations: Arc<Integrations>) -> Router {
    let router = Router::new()
        // Some gateways ask with their client's method.
        .route("/auth", any(forward_auth))
        .route("/auth/{*path}", any(forward_auth_before_path))
        .route("/oauth2/introspect", post(introspect))
        .route("/oauth2/revoke", post(revoke));
    let router = match integrations.config.token_review.clone() {
        None => router,
        Some(config) => router.merge(token_review(config)),
    };
    router.layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES)).with_state(integrations)
}

async fn forward_auth(
    State(integrations): State<Arc<Integrations>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    gate(&integrations, &peer, query.as_deref().unwrap_or_default(), &headers).await
}

/// Answers `/auth` for gateways that put their own path before their client's: the requirements are
/// the part of the path up to the next slash. Everything after it, and the query, is the client's.
async fn forward_auth_before_path(
    State(integrations): State<Arc<Integrations>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match uri.path().strip_prefix(BEFORE_PATH).and_then(|rest| rest.split_once('/')) {
        Some((required, _)) => gate(&integrations, &peer, required, &headers).await,
        // Without the slash the client could extend it.
        None => answer(StatusCode::NOT_FOUND, None),
    }
}

async fn gate(integrations: &Integrations, peer: &Peer, required: &str, headers: &HeaderMap) -> Response {
    match integrations.forward_auth(peer, required, headers).await {
        Err(refusal) => refused(refusal.parts()),
        Ok(Admission { identity, limits }) => {
            let mut response = with_limits(answer(StatusCode::OK, None), limits.as_ref());
            for (name, value) in identity.headers(&integrations.config.identity_headers) {
                // Only visible ASCII and spaces.
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
    }
}

fn token_review(config: TokenReviewConfig) -> Router<Arc<Integrations>> {
    let review = async move |State(integrations): State<Arc<Integrations>>,
                             ConnectInfo(peer): ConnectInfo<Peer>,
                             headers: HeaderMap,
                             body: Bytes| {
        match integrations.review(&config, &peer, &headers, &body).await {
            Ok((body, limits)) => {
                with_limits(answer(StatusCode::OK, Some(body.to_string())), limits.as_ref())
            }
            Err(refusal) => refused_to_caller(&refusal, &headers),
        }
    };
    Router::new().route("/tokenreview", post(review))
}

async fn introspect(
    State(integrations): State<Arc<Integrations>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match integrations.introspect(&peer, &headers, form(&headers, &body)).await {
        Ok((body, limits)) => with_limits(answer(StatusCode::OK, Some(body.to_string())), limits.as_ref()),
        Err(refusal) => refused_to_caller(&refusal, &headers),
    }
}

async fn revoke(
    State(integrations): State<Arc<Integrations>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match integrations.revoke(&peer, &headers, form(&headers, &body)).await {
        Ok(()) => answer(StatusCode::OK, None),
        Err(refusal) => refused_to_caller(&refusal, &headers),
    }
}

/// Returns a body that is a form, else nothing.
fn form<'a>(headers: &HeaderMap, body: &'a [u8]) -> &'a [u8] {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") { body } else { &[] }
}

fn answer(status: StatusCode, json: Option<String>) -> Response {
    let kind = json.is_some().then_some([(header::CONTENT_TYPE, JSON)]);
    let body = json.map_or_else(Body::empty, Body::from);
    (status, [(header::CACHE_CONTROL, NO_STORE)], kind, body).into_response()
}

/// Adds the headers about the limits of a token, if it has some.
fn with_limits(mut response: Response, limits: Option<&Limits>) -> Response {
    for (name, value) in limits.into_iter().flat_map(Limits::headers) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Refuses a caller. One that is not authenticated is challenged with the scheme it used, or with
/// all if it used none: many clients wait for a challenge, and answer only a scheme that they know.
fn refused_to_caller(refusal: &Refusal, headers: &HeaderMap) -> Response {
    let mut parts = refusal.parts();
    if parts.status != StatusCode::UNAUTHORIZED {
        return refused(parts);
    }
    let used = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = used.split(' ').next().unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return refused(parts);
    }
    parts.body = plain("invalid_client");
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    parts.challenge = (!is_basic).then(|| "Bearer".to_owned());
    let mut response = refused(parts);
    response.headers_mut().append(header::WWW_AUTHENTICATE, BASIC);
    response
}

/// Refuses, with the time to retry where that may help.
fn refused(parts: ResponseParts) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in parts.headers() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    (parts.status, headers, parts.body).into_response()
}
