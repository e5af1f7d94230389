//! Envoy's external authorization, asked as Envoy asks: what is read, what is answered. Envoy itself is in
//! `gateways`.

use std::collections::HashMap;

use tokend::ways::envoy::authorization_client::AuthorizationClient;
use tokend::ways::envoy::check_response::HttpResponse;
use tokend::ways::envoy::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, Peer, Request, SocketAddress,
};
use tonic::Code;

use super::asking::{House, Question, Said};
use crate::support::client::created_with;
use crate::support::replica::Replica;

/// A question of Envoy's.
#[derive(Debug, Default)]
struct Check<'a> {
    headers: &'a [(&'a str, &'a str)],
    extensions: &'a [(&'a str, &'a str)],
    source: &'a str,
}

async fn check(replica: &Replica, check: &Check<'_>) -> CheckResponse {
    let map = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let socket_address = Some(SocketAddress { address: check.source.to_owned() });
    let attributes = AttributeContext {
        source: Some(Peer { address: Some(Address { socket_address }) }),
        request: Some(Request { http: Some(HttpRequest { headers: map(check.headers) }) }),
        context_extensions: map(check.extensions),
    };
    let request = CheckRequest { attributes: Some(attributes) };
    AuthorizationClient::new(replica.channel()).check(request).await.unwrap().into_inner()
}

fn value(headers: &[HeaderValueOption], name: &str) -> Option<String> {
    let mut found = headers.iter().filter_map(|option| {
        // Otherwise Envoy would add to what the client has sent.
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
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        503 => Code::Unavailable,
        _ => panic!("{status}"),
    };
    assert_eq!(code, expected);
    denied
}

/// Asks what every way is asked.
pub(crate) async fn ask(replica: &Replica, question: &Question) -> Said {
    let bearer = format!("Bearer {}", question.secret);
    let scope = question.required.join(" ");
    let asked = Check {
        headers: &[(":authority", "api"), ("authorization", &bearer)],
        extensions: &[("organization", "acme"), ("scope", &scope)],
        source: question.client.unwrap_or_default(),
    };
    match check(replica, &asked).await {
        CheckResponse { http_response: Some(HttpResponse::OkResponse(ok)), status } => {
            assert_eq!(status.unwrap().code, 0);
            Said::Admitted {
                user: value(&ok.headers, "x-tokend-user").unwrap(),
                organization: value(&ok.headers, "x-tokend-organization").unwrap(),
                token_id: value(&ok.headers, "x-tokend-token-id").unwrap(),
            }
        }
        response => {
            let denied = denied(response);
            if denied.status.unwrap().code == 503 {
                assert_eq!(value(&denied.headers, "retry-after").unwrap(), "1");
                return Said::Unknown;
            }
            let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            Said::Denied(body["verdict"].as_str().unwrap().to_owned())
        }
    }
}

#[tokio::test]
async fn whoever_is_let_in_is_told_about_and_loses_the_credential() {
    let house = House::new().await;
    let mut root = house.replica.root();
    let scoped = created_with(&mut root, "acme", &["a:b", "c"]).await.secret;
    let plain = created_with(&mut root, "acme", &[]).await.secret;

    for (secret, scopes) in [(&scoped, Some("a:b c")), (&plain, None)] {
        let headers = [("x-api-key", &**secret), ("x-tokend-scopes", "forged")];
        let asked = Check { headers: &headers, extensions: &[("header", "X-API-Key")], ..Check::default() };
        let response = check(&house.replica, &asked).await;
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("{response:?}") };
        assert_eq!(value(&ok.headers, "x-tokend-user").unwrap(), "ada");
        assert_eq!(value(&ok.headers, "x-tokend-scopes").as_deref(), scopes);
        assert!(ok.headers_to_remove.contains(&"x-api-key".to_owned()));
        // What has no value is removed, or the client's own would get through.
        assert_eq!(ok.headers_to_remove.contains(&"x-tokend-scopes".to_owned()), scopes.is_none());
    }
}

#[tokio::test]
async fn a_denial_has_a_challenge_and_a_small_body() {
    let house = House::new().await;
    let secret = created_with(&mut house.replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");
    let (bearer, twice) = (("authorization", &*bearer), format!("{bearer},{bearer}"));

    for (headers, extensions, status, challenge) in [
        (&[][..], &[][..], 401, Some("Bearer")),
        (&[("authorization", &*twice)], &[], 401, Some(r#"Bearer error="invalid_token""#)),
        (&[bearer], &[("scope", "b")], 403, Some(r#"Bearer error="insufficient_scope", scope="b""#)),
        (&[bearer, ("x-tokend-require-scopes", "b")], &[("scope", "a")], 403, Some("")),
        (&[bearer], &[("scopes", "a")], 400, None),
        (&[bearer], &[("scope", "A")], 400, None),
    ] {
        let denied = denied(check(&house.replica, &Check { headers, extensions, source: "192.0.2.1" }).await);
        assert_eq!(denied.status.unwrap().code, status, "{headers:?}");
        let said = value(&denied.headers, "www-authenticate");
        match challenge {
            Some("") => assert!(said.is_some()),
            challenge => assert_eq!(said.as_deref(), challenge),
        }
        assert_eq!(value(&denied.headers, "content-type").unwrap(), "application/json");
        assert!(denied.body.starts_with(r#"{"error":"#) && !denied.body.contains(&secret));
    }
}

#[tokio::test]
async fn without_its_switch_the_service_is_not_there() {
    let replica = Replica::start().await;
    let request = CheckRequest::default();
    let outcome = AuthorizationClient::new(replica.channel()).check(request).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unimplemented);
}

/// Returns the names of the headers that Envoy is told to add for who is let in.
pub(crate) async fn told(replica: &Replica, secret: &str) -> Vec<String> {
    let bearer = format!("Bearer {secret}");
    let asked = Check { headers: &[("authorization", &bearer)], ..Check::default() };
    let Some(HttpResponse::OkResponse(ok)) = check(replica, &asked).await.http_response else {
        panic!("refused");
    };
    ok.headers.into_iter().map(|option| option.header.unwrap().key).collect()
}
