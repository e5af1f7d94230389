//! Envoy's external authorization, on the gRPC port. Requirements are in the route's `context_extensions`,
//! with the names of `/auth`'s query. A refusal is an OK reply that has Envoy send a status, a challenge and
//! a body; so is an outage, with 503: without such a reply Envoy would send 403.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tonic::{Request, Response, Status};

use crate::admission::request_reader::TooLong;
use crate::api::http::client_address::FORWARDED;
use crate::api::http::form::Form;
use crate::api::http::forward_auth::{self, PARAMETERS, REQUIRED};
use crate::api::http::gate::Admission;
use crate::api::http::identity::IdentityHeaders;
use crate::api::http::integrations::{self, Integrations, Requirements};
use crate::api::http::limit_headers::Limits;
use crate::api::http::refusal::Refusal;
use crate::api::http::{client_address, presented};
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::proto::Token;
use crate::api::status::check_code;
use crate::auth::peer::Peer;
use crate::domain::plan::PlanName;
use crate::domain::{FieldError, OrganizationId};
use crate::limits::{LimitStatus, StatusKind};
use crate::metrics::Integration;
use crate::runtime::deadline;

/// The messages, the client and the service, generated from
/// `third-party/envoy/service/auth/v3/authorization.proto`.
#[expect(clippy::pedantic, missing_docs, reason = "generated")]
pub mod proto {
    tonic::include_proto!("envoy.service.auth.v3");

    /// The encoded `FileDescriptorSet` of the contract and what it imports, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("envoy_descriptor");
}

use proto::authorization_server::{Authorization, AuthorizationServer};
use proto::check_response::HttpResponse;
use proto::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpStatus,
    OkHttpResponse,
};

/// The largest `CheckRequest` that is read, in bytes: Envoy accepts 60 KiB of request headers, and
/// all may be sent. Bodies need not be sent: they are not read.
pub const MAX_CHECK_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// The path of the method. A request that is too long also gets a `CheckResponse`.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Serves `envoy.service.auth.v3.Authorization`.
#[derive(Debug)]
pub struct ExtAuthz(Arc<Integrations>);

impl ExtAuthz {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn server(integrations: Arc<Integrations>) -> AuthorizationServer<Self> {
        AuthorizationServer::new(Self(integrations)).max_decoding_message_size(MAX_CHECK_BYTES)
    }
}

impl fmt::Debug for proto::HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credential is among the headers.
        f.debug_struct("HttpRequest").field("headers", &"[redacted]").finish()
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let too_long = request.extensions().get::<TooLong>().is_some();
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let timeout = timeout.and_then(deadline::parse_timeout);
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let outcome = if too_long {
            let gateway = peer.as_ref().map(|peer| peer.address.ip());
            self.0.call(Integration::ExtAuthz, gateway, None, ready(Err(Refusal::TooLong))).await
        } else {
            deadline::within(timeout, self.0.check(peer.as_ref(), attributes)).await
        };
        if let (Some(peer), Ok(_)) = (&peer, &outcome) {
            // A gateway has no credential of its own; presenting one of its client's makes it a known peer.
            peer.credentials.note();
        }
        Ok(Response::new(match outcome {
            Ok((admission, credential)) => let_in(&admission, &self.0.config.identity_headers, &credential),
            Err(refusal) => denied(&refusal),
        }))
    }
}

impl Integrations {
    /// Checks a request for Envoy; returns whom it admits and the name of the header that held the secret.
    async fn check(
        &self,
        peer: Option<&Peer>,
        attributes: AttributeContext,
    ) -> Result<(Admission, HeaderName), Refusal> {
        let AttributeContext { source, request, context_extensions } = attributes;
        let http = request.and_then(|request| request.http).unwrap_or_default();
        let traceparent = values(&http, "traceparent").find_map(|value| std::str::from_utf8(value).ok());
        let gateway = peer.map(|peer| peer.address.ip());
        self.call(Integration::ExtAuthz, gateway, traceparent, async {
            let extensions = Form::of(&context_extensions, &PARAMETERS)?;
            let name = extensions.parse("header", forward_auth::header_name)?;
            let headers = headers(&http, name.as_ref())?;
            let source = source.and_then(|source| source.address?.socket_address);
            let source = source.map(|source| source.address);
            let client_ip = gateway.zip(source).and_then(|(gateway, source)| {
                client_address::behind(&self.config, gateway, Some(&source), &headers)
            });
            let (required, unmeetable) = forward_auth::scopes(extensions.get("scope"), &headers)?;
            let organization = extensions.parse("organization", OrganizationId::parse)?;
            let cost = extensions.parse("cost", integrations::cost)?;
            let limit = extensions.parse("limit", PlanName::parse)?;
            let requirements = Requirements { cost, limit, required, unmeetable, organization, client_ip };
            let secret = presented::credential(&headers, name.as_ref());
            let admission = self.admit(secret, &requirements, gateway).await?;
            Ok((admission, name.unwrap_or(AUTHORIZATION)))
        })
        .await
    }
}

/// Returns all values of a header. Envoy sends them as text, or as bytes if so configured.
fn values<'a>(http: &'a proto::HttpRequest, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let texts = http.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let raw = raw.map(|header| match &*header.raw_value {
        [] => (&header.key, header.value.as_bytes()),
        raw => (&header.key, raw),
    });
    texts.chain(raw).filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Takes only the headers that are read here; others may be invalid, which is for their reader to report.
fn headers(http: &proto::HttpRequest, credential: Option<&HeaderName>) -> Result<HeaderMap, Refusal> {
    const NONE: FieldError = FieldError::Rule("contains one that is not a valid header");
    let mut headers = HeaderMap::new();
    let read = [AUTHORIZATION, HeaderName::from_static(REQUIRED), HeaderName::from_static(FORWARDED)];
    for name in read.iter().chain(credential.filter(|name| !read.contains(name))) {
        for value in values(http, name.as_str()) {
            let value = HeaderValue::from_bytes(value).map_err(|_| Refusal::parameter("headers", &NONE))?;
            headers.append(name, value);
        }
    }
    Ok(headers)
}

fn let_in(admission: &Admission, names: &IdentityHeaders, credential: &HeaderName) -> CheckResponse {
    let identity = &admission.identity;
    // An empty value would keep the client's own header, so the header is removed instead.
    let (nonempty, empty): (Vec<_>, Vec<_>) =
        identity.headers(names).into_iter().partition(|(_, value)| !value.is_empty());
    let mut headers_to_remove = vec![credential.as_str().to_owned(), REQUIRED.to_owned()];
    headers_to_remove.extend(empty.into_iter().map(|(name, _)| name.as_str().to_owned()));
    let headers = nonempty.into_iter().map(|(name, value)| header(name.as_str(), value)).collect();
    let limits = admission.limits.iter().flat_map(Limits::headers);
    let response_headers_to_add = limits.map(|(name, value)| header(name, value)).collect();
    let response = OkHttpResponse { headers, headers_to_remove, response_headers_to_add };
    let dynamic_metadata = Some(metadata(admission));
    CheckResponse { dynamic_metadata, ..reply(StatusCode::OK, HttpResponse::OkResponse(response)) }
}

/// Returns what filters after this one can use: the plan, the labels and the limits of the token.
fn metadata(admission: &Admission) -> Struct {
    let Token { plan, labels, .. } = &admission.identity.0;
    let labels = labels.iter().map(|(key, value)| (key.as_str(), text(value)));
    let limits = admission.limits.iter().flat_map(|limits| &limits.spending.limits).map(limit);
    structure([
        ("plan", text(plan)),
        ("labels", Kind::StructValue(structure(labels))),
        ("limits", Kind::ListValue(ListValue { values: limits.map(value).collect() })),
    ])
}

/// Describes a limit as the contract's `LimitStatus` in JSON; numbers are at most 2^53 and so exact.
#[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
fn limit(limit: &LimitStatus) -> Kind {
    let kind = match limit.kind {
        StatusKind::Rate => "rate",
        StatusKind::Credits => "credits",
    };
    let number = |number: i64| Kind::NumberValue(number as f64);
    Kind::StructValue(structure([
        ("name", text(&limit.name)),
        ("kind", text(kind)),
        ("limit", number(limit.limit)),
        ("remaining", number(limit.remaining)),
    ]))
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Kind)>) -> Struct {
    let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), value(kind)));
    Struct { fields: fields.collect() }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn denied(refusal: &Refusal) -> CheckResponse {
    let parts = refusal.parts();
    let headers = parts.headers().map(|(name, value)| header(name, value)).collect();
    let status = Some(HttpStatus { code: parts.status.as_u16().into() });
    let response = DeniedHttpResponse { status, headers, body: parts.body };
    reply(parts.status, HttpResponse::DeniedResponse(response))
}

fn reply(status: StatusCode, response: HttpResponse) -> CheckResponse {
    let status = proto::Status { code: check_code(status) };
    CheckResponse { status: Some(status), http_response: Some(response), dynamic_metadata: None }
}

fn header(name: &str, value: String) -> HeaderValueOption {
    let header = proto::HeaderValue { key: name.to_owned(), value, ..proto::HeaderValue::default() };
    HeaderValueOption { header: Some(header), append: Some(false) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_check_does_not_show_its_headers_when_debugged() {
        let headers = HashMap::from([("authorization".to_owned(), "Bearer canary".to_owned())]);
        let raw = proto::HeaderValue { raw_value: b"Bearer canary".into(), ..proto::HeaderValue::default() };
        let header_map = Some(proto::HeaderMap { headers: vec![raw] });
        let request = proto::Request { http: Some(proto::HttpRequest { headers, header_map }) };
        let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
        let shown = format!("{:?}", Request::new(CheckRequest { attributes: Some(attributes) }));
        assert!(shown.contains("redacted") && !shown.contains("canary"), "{shown}");
    }
}
