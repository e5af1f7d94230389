//! Envoy's external authorization, called as Envoy does: what is read, and the response. Envoy
//! itself is in `gateways`.

use std::collections::HashMap;

use prost_types::ListValue;
use prost_types::value::Kind;
use tokend::api::grpc::MAX_CHECK_BYTES;
use tokend::api::grpc::envoy::authorization_client::AuthorizationClient;
use tokend::api::grpc::envoy::check_response::HttpResponse;
use tokend::api::grpc::envoy::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderMap, HeaderValue,
    HeaderValueOption, HttpRequest, Peer, Request, SocketAddress,
};
use tokend::api::proto::CreateTokenRequest;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::asking::{Case, Decision, Fixture};
use crate::support::client::{created, created_with, ordinary};
use crate::support::replica::Replica;

/// A request from Envoy.
#[derive(Debug, Default)]
pub(super) struct Check<'a> {
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) extensions: &'a [(&'a str, &'a str)],
    pub(super) source: &'a str,
    /// Whether Envoy is configured with `encode_raw_headers`.
    pub(super) raw: bool,
}

fn http(check: &Check<'_>, headers: HashMap<String, String>) -> HttpRequest {
    if !check.raw {
        return HttpRequest { headers, header_map: None };
    }
    let raw = check.headers.iter().map(|(key, value)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    });
    HttpRequest { headers: HashMap::new(), header_map: Some(HeaderMap { headers: raw.collect() }) }
}

pub(super) async fn check(replica: &Replica, check: &Check<'_>) -> CheckResponse {
    let map = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let socket_address = Some(SocketAddress { address: check.source.to_owned() });
    let attributes = AttributeContext {
        source: Some(Peer { address: Some(Address { socket_address }) }),
        request: Some(Request { http: Some(http(check, map(check.headers))) }),
        context_extensions: map(check.extensions),
    };
    let request = CheckRequest { attributes: Some(attributes) };
    AuthorizationClient::new(replica.channel()).check(request).await.unwrap().into_inner()
}

fn value(headers: &[HeaderValueOption], name: &str) -> Option<String> {
    let mut found = headers.iter().filter_map(|option| {
        // Otherwise Envoy would append to the client's own header.
        assert_eq!(option.append, Some(false));
        option.header.as_ref().filter(|header| header.key == name)
    });
    let value = found.next().map(|header| header.value.clone());
    assert!(found.next().is_none(), "{name} twice");
    value
}

#[track_caller]
fn denied(response: CheckResponse) -> DeniedHttpResponse {
    let code = Code::from_i32(response.status.unwrap().code);
    let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else { panic!("let in") };
    let status = denied.status.unwrap().code;
    let expected = match status {
        400 | 413 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        _ => panic!("{status}"),
    };
    assert_eq!(code, expected);
    denied
}

/// Sends a case as Envoy's check.
pub(crate) async fn ask(replica: &Replica, case: &Case) -> Decision {
    let bearer = format!("Bearer {}", case.secret);
    let scope = case.required.join(" ");
    let asked = Check {
        headers: &[(":authority", "api"), ("authorization", &bearer)],
        extensions: &[("organization", "acme"), ("scope", &scope)],
        source: case.client.unwrap_or_default(),
        raw: false,
    };
    match check(replica, &asked).await {
        CheckResponse { http_response: Some(HttpResponse::OkResponse(ok)), status, .. } => {
            assert_eq!(status.unwrap().code, 0);
            Decision::Admitted {
                user: value(&ok.headers, "x-tokend-user").unwrap(),
                organization: value(&ok.headers, "x-tokend-organization").unwrap(),
                token_id: value(&ok.headers, "x-tokend-token-id").unwrap(),
            }
        }
        response => {
            let denied = denied(response);
            if denied.status.unwrap().code == 503 {
                assert_eq!(value(&denied.headers, "retry-after").unwrap(), "1");
                return Decision::Unknown;
            }
            let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            Decision::Denied(body["verdict"].as_str().unwrap().to_owned())
        }
    }
}

#[tokio::test]
async fn filters_after_the_check_get_the_labels_of_the_token() {
    let fixture = Fixture::new().await;
    let labels = std::collections::HashMap::from([("team".to_owned(), "x".to_owned())]);
    let request = CreateTokenRequest { labels, ..ordinary() };
    let token = created(&mut fixture.replica.root(), request).await;
    let bearer = format!("Bearer {}", token.secret);
    let headers = [("authorization", &*bearer)];

    for (extensions, admitted) in [
        (&[][..], true),
        (&[("cost", "0")], true),
        (&[("cost", "4294967295")], true),
        (&[("cost", "4294967296")], false),
        (&[("cost", "-1")], false),
        (&[("cost", "+1")], false),
        (&[("limit", "A")], false),
        // The token has no plan, and so no limit of any name.
        (&[("limit", "reads")], false),
    ] {
        let response =
            check(&fixture.replica, &Check { headers: &headers, extensions, ..Check::default() }).await;
        if !admitted {
            assert_eq!(denied(response).status.unwrap().code, 400, "{extensions:?}");
            continue;
        }
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("{extensions:?}") };
        assert_eq!(ok.response_headers_to_add, [], "it has no limits");
        let metadata = response.dynamic_metadata.unwrap();
        let Some(Kind::StructValue(labels)) = metadata.fields["labels"].kind.clone() else { panic!() };
        assert_eq!(labels.fields["team"].kind, Some(Kind::StringValue("x".to_owned())));
        assert_eq!(metadata.fields["limits"].kind, Some(Kind::ListValue(ListValue::default())));
    }
}

#[tokio::test]
async fn an_admitted_request_has_identity_headers_and_no_credential() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let scoped = created_with(&mut root, "acme", &["a:b", "c"]).await.secret;
    let plain = created_with(&mut root, "acme", &[]).await.secret;

    for (secret, scopes) in [(&scoped, Some("a:b c")), (&plain, None)] {
        let headers = [("x-api-key", &**secret), ("x-tokend-scopes", "forged")];
        let asked = Check { headers: &headers, extensions: &[("header", "X-API-Key")], ..Check::default() };
        let response = check(&fixture.replica, &asked).await;
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("{response:?}") };
        assert_eq!(value(&ok.headers, "x-tokend-user").unwrap(), "ada");
        assert_eq!(value(&ok.headers, "x-tokend-scopes").as_deref(), scopes);
        assert!(ok.headers_to_remove.contains(&"x-api-key".to_owned()));
        // A header without a value is removed, or the client's own would get through.
        assert_eq!(ok.headers_to_remove.contains(&"x-tokend-scopes".to_owned()), scopes.is_none());
    }
}

#[tokio::test]
async fn raw_headers_are_read_separately() {
    let fixture = Fixture::new().await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");
    let bearer = ("authorization", &*bearer);

    for (headers, status) in [
        (&[(":path", "/"), bearer][..], 200),
        (&[(":path", "/"), ("Authorization", bearer.1)], 200),
        (&[bearer, ("x-tokend-require-scopes", "a"), ("x-tokend-require-scopes", "a")], 200),
        (&[bearer, ("x-tokend-require-scopes", "a"), ("x-tokend-require-scopes", "b")], 403),
        (&[bearer, bearer], 401),
    ] {
        let response = check(&fixture.replica, &Check { headers, raw: true, ..Check::default() }).await;
        match response.http_response.clone() {
            Some(HttpResponse::OkResponse(_)) => assert_eq!(status, 200, "{headers:?}"),
            _ => assert_eq!(denied(response).status.unwrap().code, status, "{headers:?}"),
        }
    }
}

#[tokio::test]
async fn a_check_that_is_too_long_is_denied_with_envoys_response() {
    let fixture = Fixture::new().await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");
    for (length, status) in [(MAX_CHECK_BYTES - 1000, 200), (MAX_CHECK_BYTES, 413), (4 << 20, 413)] {
        let long = "x".repeat(length);
        let headers = [("authorization", &*bearer), ("x-long", &long)];
        let response = check(&fixture.replica, &Check { headers: &headers, ..Check::default() }).await;
        match response.http_response.clone() {
            Some(HttpResponse::OkResponse(_)) => assert_eq!(status, 200, "{length}"),
            _ => assert_eq!(denied(response).status.unwrap().code, status, "{length}"),
        }
    }
}

#[tokio::test]
async fn a_denial_has_a_challenge_and_a_small_body() {
    let fixture = Fixture::new().await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");
    let (bearer, twice) = (("authorization", &*bearer), format!("{bearer},{bearer}"));

    for (headers, extensions, status, challenge) in [
        (&[][..], &[][..], 401, Some("Bearer")),
        (&[("authorization", &*twice)], &[], 401, Some(r#"Bearer error="invalid_token""#)),
        (&[bearer], &[("scope", "b")], 403, Some(r#"Bearer error="insufficient_scope", scope="b""#)),
        (&[bearer, ("x-tokend-require-scopes", "b")], &[("scope", "a")], 403, Some("")),
        (&[bearer, ("x-tokend-require-scopes", "B")], &[], 403, Some(r#"Bearer error="insufficient_scope""#)),
        // Headers that are not read are not judged.
        (&[("x odd", "\u{1}")], &[], 401, Some("Bearer")),
        (&[("authorization", "Bearer \u{1}")], &[], 400, None),
        (&[bearer], &[("scopes", "a")], 400, None),
        (&[bearer], &[("scope", "A")], 400, None),
    ] {
        let asked = Check { headers, extensions, source: "192.0.2.1", raw: false };
        let response = check(&fixture.replica, &asked).await;
        let raw = check(&fixture.replica, &Check { raw: true, ..asked }).await;
        assert_eq!(response, raw, "raw headers are judged as others are");
        let denied = denied(response);
        assert_eq!(denied.status.unwrap().code, status, "{headers:?}");
        let output = value(&denied.headers, "www-authenticate");
        match challenge {
            Some("") => assert!(output.is_some()),
            challenge => assert_eq!(output.as_deref(), challenge),
        }
        assert_eq!(value(&denied.headers, "content-type").unwrap(), "application/json");
        assert!(denied.body.starts_with(r#"{"error":"#) && !denied.body.contains(&secret));
    }
}

#[tokio::test]
async fn without_its_flag_the_service_does_not_exist() {
    let replica = Replica::start().await;
    let request = CheckRequest::default();
    let outcome = AuthorizationClient::new(replica.channel()).check(request).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn reflection_lists_the_service_only_where_it_is_enabled() {
    for (replica, is_on) in [(Fixture::new().await.replica, true), (Replica::start().await, false)] {
        let requests = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("envoy.service.auth.v3.Authorization.Check".to_owned()),
        ];
        let requests = requests
            .map(|request| ServerReflectionRequest { host: String::new(), message_request: Some(request) });
        let mut client = ServerReflectionClient::new(replica.channel());
        let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
        let mut answers = answers.into_inner();
        let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();

        let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
        let mut services = list.service.iter().map(|service| &*service.name);
        assert_eq!(services.any(|name| name == "envoy.service.auth.v3.Authorization"), is_on, "{list:?}");
        let has_identity = matches!(next().await, MessageResponse::FileDescriptorResponse(_));
        assert_eq!(has_identity, is_on);
    }
}

/// Returns the names of the headers that Envoy is to add for an accepted token.
pub(crate) async fn identity_headers(replica: &Replica, secret: &str) -> Vec<String> {
    let bearer = format!("Bearer {secret}");
    let asked = Check { headers: &[("authorization", &bearer)], ..Check::default() };
    let Some(HttpResponse::OkResponse(ok)) = check(replica, &asked).await.http_response else {
        panic!("refused");
    };
    ok.headers.into_iter().map(|option| option.header.unwrap().key).collect()
}
