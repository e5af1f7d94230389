//! Envoy's external authorization, on the gRPC port: Envoy asks before it hands a request on. What is required
//! stands in the route's `context_extensions`, by the names that `/auth` has in its query. A refusal is an OK reply
//! that has Envoy send a status, a challenge and a body; so is an outage, which has it send 503: left to itself,
//! Envoy would say 403.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tonic::{Request, Response, Status};

use super::form::Form;
use super::forward_auth::{self, REQUIRED};
use super::identity::{Identity, IdentityHeaders};
use super::refusal::Refusal;
use super::{Wanted, Ways, client, presented};
use crate::deadline;
use crate::domain::{FieldError, OrganizationId};
use crate::grpc::{MAX_REQUEST_BYTES, check_code};
use crate::listener::Peer;
use crate::metrics::Way;

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

/// What a route may say.
const EXTENSIONS: [&str; 3] = ["scope", "organization", "header"];

/// Envoy lets a request have 60 KiB of headers, and all of them may come.
pub const MAX_CHECK_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// Serves `envoy.service.auth.v3.Authorization`.
#[derive(Debug)]
pub struct ExtAuthz(Arc<Ways>);

impl ExtAuthz {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn server(ways: Arc<Ways>) -> AuthorizationServer<Self> {
        AuthorizationServer::new(Self(ways)).max_decoding_message_size(MAX_CHECK_BYTES)
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
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let timeout = timeout.and_then(deadline::parse_timeout);
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let outcome = deadline::within(timeout, self.0.check(peer.as_ref(), attributes)).await;
        Ok(Response::new(match outcome {
            Ok((identity, credential)) => let_in(&identity, &self.0.config.identity_headers, &credential),
            Err(refusal) => denied(&refusal),
        }))
    }
}

impl Ways {
    /// Answers Envoy; with whom it lets in comes the name of the header that held the secret.
    async fn check(
        &self,
        peer: Option<&Peer>,
        attributes: AttributeContext,
    ) -> Result<(Identity, HeaderName), Refusal> {
        let AttributeContext { source, request, context_extensions } = attributes;
        let http = request.and_then(|request| request.http).unwrap_or_default();
        let traceparent = http.headers.get("traceparent").map(String::as_str);
        let gateway = peer.map(|peer| peer.address.ip());
        self.call(Way::ExtAuthz, gateway, traceparent, async {
            let extensions = Form::of(&context_extensions, &EXTENSIONS)?;
            let name = extensions.parse("header", forward_auth::header_name)?;
            let headers = headers(&http.headers)?;
            let source = source.and_then(|source| source.address?.socket_address);
            let source = source.map(|source| source.address);
            let client_ip = gateway
                .zip(source)
                .and_then(|(gateway, source)| client::behind(&self.config, gateway, Some(&source), &headers));
            let wanted = Wanted {
                required: forward_auth::scopes(extensions.get("scope"), &headers)?,
                organization: extensions.parse("organization", OrganizationId::parse)?,
                client_ip,
            };
            let secret = presented::credential(&headers, name.as_ref());
            let identity = self.admit(secret, &wanted, gateway).await?;
            Ok((identity, name.unwrap_or(axum::http::header::AUTHORIZATION)))
        })
        .await
    }
}

fn headers(texts: &HashMap<String, String>) -> Result<HeaderMap, Refusal> {
    const NONE: FieldError = FieldError::Rule("has one that cannot be a header");
    let mut headers = HeaderMap::with_capacity(texts.len());
    // Pseudo-headers are none.
    for (name, value) in texts.iter().filter(|(name, _)| !name.starts_with(':')) {
        let read = name.parse::<HeaderName>().ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
        let (name, value) = read.ok_or_else(|| Refusal::parameter("headers", &NONE))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn let_in(identity: &Identity, names: &IdentityHeaders, credential: &HeaderName) -> CheckResponse {
    // One without a value would leave that of the client, so it is removed instead.
    let (told, empty): (Vec<_>, Vec<_>) =
        identity.headers(names).into_iter().partition(|(_, value)| !value.is_empty());
    let mut headers_to_remove = vec![credential.as_str().to_owned(), REQUIRED.to_owned()];
    headers_to_remove.extend(empty.into_iter().map(|(name, _)| name.as_str().to_owned()));
    let headers = told.into_iter().map(|(name, value)| header(name.as_str(), value)).collect();
    reply(StatusCode::OK, HttpResponse::OkResponse(OkHttpResponse { headers, headers_to_remove }))
}

fn denied(refusal: &Refusal) -> CheckResponse {
    let said = refusal.said();
    let headers = said.headers().map(|(name, value)| header(name, value)).collect();
    let status = Some(HttpStatus { code: said.status.as_u16().into() });
    let response = DeniedHttpResponse { status, headers, body: said.body };
    reply(said.status, HttpResponse::DeniedResponse(response))
}

fn reply(status: StatusCode, response: HttpResponse) -> CheckResponse {
    let status = proto::Status { code: check_code(status) };
    CheckResponse { status: Some(status), http_response: Some(response) }
}

fn header(name: &str, value: String) -> HeaderValueOption {
    let header = proto::HeaderValue { key: name.to_owned(), value };
    HeaderValueOption { header: Some(header), append: Some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_does_not_show_its_headers_when_debugged() {
        let headers = HashMap::from([("authorization".to_owned(), "Bearer canary".to_owned())]);
        let request = proto::Request { http: Some(proto::HttpRequest { headers }) };
        let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
        let shown = format!("{:?}", Request::new(CheckRequest { attributes: Some(attributes) }));
        assert!(shown.contains("redacted") && !shown.contains("canary"), "{shown}");
    }
}
