//! RFC 7662: who may introspect, and what the response has and does not have.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokend::api::proto::CreateTokenRequest;
use tokend::api::proto::create_token_request::Expiration;

use super::asking::Fixture;
use crate::support::client::{created, created_with, ordinary, second, texts};
use crate::support::http::{post, send};

const PATH: &str = "/oauth2/introspect";

#[tokio::test]
async fn a_valid_token_is_described_with_the_standard_fields() {
    let fixture = Fixture::new().await;
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        scopes: texts(&["a:b", "c"]),
        expiration: Some(Expiration::ExpireTime(second(4_000_000_000))),
        ..ordinary()
    };
    let made = created(&mut fixture.replica.root(), request).await;
    let token = made.token.unwrap();

    let reply = fixture.post(PATH, &[("token", &made.secret), ("token_type_hint", "access_token")]).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type").unwrap(), "application/json");
    assert_eq!(reply.header("cache-control").unwrap(), "no-store");
    let expected = json!({
        "active": true,
        "scope": "a:b c",
        "token_type": "Bearer",
        "sub": "ada",
        "jti": token.id,
        "organization_id": "acme",
        "iat": token.create_time.unwrap().seconds,
        "exp": 4_000_000_000_u64,
    });
    assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), expected);
}

#[tokio::test]
async fn a_caller_sends_a_bearer_or_its_tokens_id_and_secret() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let made = created_with(&mut root, "acme", &["tokend:verify"]).await;
    let id = made.token.unwrap().id;
    let outsider = created_with(&mut root, "acme", &["plain"]).await.secret;
    let basic =
        |name: &str, secret: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{secret}")));

    for (authorization, status, challenged) in [
        (Some(format!("Bearer {}", made.secret)), 200, false),
        (Some(basic(&id, &made.secret)), 200, false),
        (Some(basic("somebody", &made.secret)), 401, true),
        (Some(basic("", &made.secret)), 401, true),
        (Some(basic(&id, "nonsense")), 401, true),
        (Some("Bearer nonsense".to_owned()), 401, true),
        (None, 401, true),
        (Some(format!("Bearer {outsider}")), 403, true),
    ] {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", &**value)).collect();
        let reply = post(fixture.replica.http, PATH, &headers, &[("token", &made.secret)]).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("www-authenticate").is_some(), challenged, "{reply:?}");
        assert!(status == 200 || !reply.body.contains("active"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_caller_introspects_its_own_organization_unless_it_has_verify_any() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let own = created_with(&mut root, "acme", &[]).await.secret;
    let other = created_with(&mut root, "other", &[]).await.secret;
    let anywhere =
        format!("Bearer {}", created_with(&mut root, "third", &["tokend:verify:any"]).await.secret);

    assert_eq!(fixture.post(PATH, &[("token", &other)]).await.body, r#"{"active":false}"#);
    for secret in [&own, &other] {
        let headers = [("authorization", &*anywhere)];
        let reply = post(fixture.replica.http, PATH, &headers, &[("token", secret)]).await;
        assert!(reply.body.contains(r#""active":true"#), "{reply:?}");
    }
}

#[tokio::test]
async fn a_request_without_one_token_is_invalid() {
    let fixture = Fixture::new().await;
    let bearer = format!("Bearer {}", fixture.backend);

    for fields in [
        &[][..],
        &[("token", "")],
        &[("token", "a"), ("token", "a")],
        &[("token", "a"), ("client_ip", "here")],
        &[("token", "a"), ("scope", "A")],
    ] {
        let reply = fixture.post(PATH, fields).await;
        assert_eq!(reply.status, 400, "{fields:?}");
        assert!(reply.body.starts_with(r#"{"error":"invalid_request","#), "{reply:?}");
    }
    // Not a form.
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    assert_eq!(send(fixture.replica.http, "POST", PATH, &headers, r#"{"token":"a"}"#).await.status, 400);
    assert_eq!(send(fixture.replica.http, "GET", &format!("{PATH}?token=a"), &headers, "").await.status, 405);
    // Unknown parameters are ignored, as the standard requires.
    assert_eq!(fixture.post(PATH, &[("token", "a"), ("colour", "blue")]).await.status, 200);
}
