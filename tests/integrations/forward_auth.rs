//! `GET /auth`: its input, its response, and that a client can only add requirements.

use super::asking::{Fixture, trusting};
use crate::support::client::{created, created_with, ordinary, texts};
use crate::support::http::{Reply, send};
use crate::support::replica::{Installation, Replica};
use tokend::api::http::identity::IdentityHeaders;
use tokend::api::proto::CreateTokenRequest;
use tokend::domain::OrganizationId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn auth(replica: &Replica, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(replica.http, "GET", path, headers, "").await
}

#[tokio::test]
async fn a_valid_secret_is_admitted_with_identity_headers() {
    let replica = Replica::start().await;
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: " zoë, 100%".to_owned(),
        scopes: texts(&["a:b", "c"]),
        ..ordinary()
    };
    let made = created(&mut replica.root(), request).await;
    let bearer = format!("bearer {}", made.secret);

    for method in ["GET", "HEAD", "POST"] {
        let reply = send(replica.http, method, "/auth", &[("authorization", &bearer)], "").await;
        assert_eq!((reply.status, &*reply.body), (200, ""), "{method}");
        assert_eq!(reply.header("x-tokend-user").unwrap(), "%20zo%C3%AB,%20100%25");
        assert_eq!(reply.header("x-tokend-organization").unwrap(), "acme");
        assert_eq!(reply.header("x-tokend-token-id"), made.token.as_ref().map(|token| token.id.clone()));
        assert_eq!(reply.header("x-tokend-scopes").unwrap(), "a:b c");
        assert_eq!(reply.header("cache-control").unwrap(), "no-store");
    }
}

#[tokio::test]
async fn a_refusal_has_a_bearer_challenge_and_a_small_body() {
    let replica = Replica::shared().await;
    let secret = created_with(&mut replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");
    let twice = [("authorization", &*bearer), ("authorization", &*bearer)];

    for (path, headers, status, challenge, body) in [
        ("/auth", &[][..], 401, Some("Bearer"), r#"{"error":"invalid_token"}"#),
        (
            "/auth",
            &[("authorization", "Basic YTpi")],
            401,
            Some(r#"Bearer error="invalid_token""#),
            r#"{"error":"invalid_token"}"#,
        ),
        ("/auth", &twice, 401, Some(r#"Bearer error="invalid_token""#), r#"{"error":"invalid_token"}"#),
        (
            "/auth",
            &[("authorization", "Bearer x")],
            401,
            Some(r#"Bearer error="invalid_token""#),
            r#"{"error":"invalid_token","verdict":"malformed"}"#,
        ),
        (
            "/auth?scope=a+b,c:d",
            &twice[..1],
            403,
            Some(r#"Bearer error="insufficient_scope", scope="b c:d""#),
            r#"{"error":"insufficient_scope","scope":"b c:d","verdict":"missing_scope"}"#,
        ),
    ] {
        let reply = auth(replica, path, headers).await;
        assert_eq!(
            (reply.status, reply.header("www-authenticate").as_deref()),
            (status, challenge),
            "{path}"
        );
        assert_eq!((&*reply.body, reply.header("content-type").as_deref()), (body, Some("application/json")));
    }
}

#[tokio::test]
async fn an_invalid_request_admits_nobody() {
    let replica = Replica::start().await;
    let secret = created_with(&mut replica.root(), "acme", &["a"]).await.secret;
    let bearer = format!("Bearer {secret}");

    for path in [
        "/auth?scopes=a",
        "/auth?scope=a&scope=a",
        "/auth?scope=A",
        "/auth?scope=a:**",
        "/auth?header=x+y",
        "/auth?organization=a%00b",
    ] {
        let reply = auth(&replica, path, &[("authorization", &bearer)]).await;
        assert_eq!(reply.status, 400, "{path}");
        assert!(reply.body.starts_with(r#"{"error":"invalid_request","#) && !reply.body.contains(&secret));
    }
}

#[tokio::test]
async fn a_client_that_sends_the_gateways_headers_only_adds_requirements() {
    let replica = Replica::shared().await;
    let secret = created_with(&mut replica.root(), "acme", &["a", "b"]).await.secret;
    let bearer = format!("Bearer {secret}");

    for (path, wanted, status) in [
        ("/auth?scope=a", "b", 200),
        ("/auth?scope=a", "", 200),
        ("/auth?scope=z", "a", 403),
        ("/auth?scope=a", "z", 403),
        ("/auth", "a b", 200),
        ("/auth", "A", 403),
        ("/auth?scope=a", "a:**", 403),
        ("/auth?scope=A", "a", 400),
    ] {
        let headers = [("authorization", &*bearer), ("x-tokend-require-scopes", wanted)];
        assert_eq!(auth(replica, path, &headers).await.status, status, "{path} {wanted}");
    }
    // Not a scope, so no token has it: unauthenticated clients get no other response.
    let many = "a ".repeat(1000);
    for wanted in ["A", "\u{e9}", &many] {
        let headers = [("authorization", &*bearer), ("x-tokend-require-scopes", wanted)];
        let reply = auth(replica, "/auth", &headers).await;
        assert_eq!(reply.status, 403, "{wanted}");
        assert_eq!(reply.header("www-authenticate").unwrap(), r#"Bearer error="insufficient_scope""#);
        assert_eq!(reply.body, r#"{"error":"insufficient_scope","verdict":"missing_scope"}"#);
        assert_eq!(auth(replica, "/auth", &headers[1..]).await.status, 401, "{wanted}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_and_its_connection_is_not_reset() {
    let replica = Replica::start().await;
    let mut stream = TcpStream::connect(replica.http).await.unwrap();
    let begun = format!("GET /auth HTTP/1.1\r\nhost: a\r\nx-long: {}", "x".repeat(20_000));

    stream.write_all(begun.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    // A gateway that is still writing has not read the response, and would take a reset for an outage.
    for _ in 0..100 {
        stream.write_all(&[b'x'; 4096]).await.expect("the rest is taken");
    }
}

#[tokio::test]
async fn requirements_may_precede_the_clients_own_path() {
    let replica = Replica::start().await;
    let secret = created_with(&mut replica.root(), "acme", &["a:b", "c"]).await.secret;
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", &*bearer)];

    for (path, status) in [
        ("/auth/organization=acme&scope=a:b+c//reports/7?scope=z&x=y", 200),
        ("/auth/organization=acme&scope=a%3Ab/", 200),
        ("/auth/scope=a:b/organization=other/scope=z", 200),
        ("/auth/scope=a:b/../scope=z", 200),
        ("/auth///reports", 200),
        ("/auth/organization=acme&scope=z//reports?scope=a:b", 403),
        ("/auth/scope=z%2Fy/", 403),
        ("/auth/scope=Z/", 400),
        ("/auth/organization=other//reports?organization=acme", 401),
        ("/auth/organization=acme&scopes=a:b//reports", 400),
        ("/auth/reports/7", 400),
        // Otherwise the client's path would become a part of it.
        ("/auth/organization=acme", 404),
        ("/auth/organization=acme?/", 404),
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            let reply = send(replica.http, method, path, &headers, "").await;
            assert_eq!(reply.status, status, "{method} {path}");
            assert_eq!(reply.header("x-tokend-user").is_some(), status == 200, "{path}");
        }
    }
    assert_eq!(auth(&replica, "/auth/organization=acme//reports", &[]).await.status, 401);
}

#[tokio::test]
async fn the_secret_may_be_in_another_header() {
    let replica = Replica::shared().await;
    let secret = created_with(&mut replica.root(), "acme", &[]).await.secret;

    let path = "/auth?header=x-api-key";
    assert_eq!(auth(replica, path, &[("X-API-Key", &secret)]).await.status, 200);
    for headers in [
        &[("authorization", &*format!("Bearer {secret}"))][..],
        &[("X-API-Key", &*format!("Bearer {secret}"))],
        &[("X-API-Key", &*secret), ("X-API-Key", &*secret)],
    ] {
        assert_eq!(auth(replica, path, headers).await.status, 401);
    }
}

#[tokio::test]
async fn a_request_narrows_the_configured_organization_and_never_widens_it() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.integrations.gateway_organization = Some(OrganizationId::parse("acme").unwrap());
    let replica = installation.serve(config).await;
    let own = created_with(&mut replica.root(), "acme", &[]).await.secret;
    let other = created_with(&mut replica.root(), "other", &[]).await.secret;

    for (path, secret, status) in [
        ("/auth", &own, 200),
        ("/auth?organization=acme", &own, 200),
        ("/auth", &other, 401),
        ("/auth?organization=acme", &other, 401),
        ("/auth?organization=other", &other, 400),
        ("/auth?organization=other", &own, 400),
    ] {
        let reply = auth(&replica, path, &[("authorization", &format!("Bearer {secret}"))]).await;
        assert_eq!(reply.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_clients_address_comes_only_from_trusted_proxies() {
    let installation = Installation::new().await;
    let distrustful = installation.serve(installation.config()).await;
    let mut config = installation.config();
    config.integrations = trusting();
    let trusting = installation.serve(config).await;
    // The gateways' own addresses are in these networks, too: that must not admit their clients.
    let request = CreateTokenRequest { allowed_cidrs: texts(&["10.0.0.0/8", "127.0.0.0/8"]), ..ordinary() };
    let secret = created(&mut trusting.root(), request).await.secret;
    let bearer = format!("Bearer {secret}");

    for (replica, forwarded, status) in [
        (&trusting, Some("10.1.2.3"), 200),
        (&trusting, Some("10.1.2.3, 192.0.2.1"), 403),
        (&trusting, Some("192.0.2.1, 10.1.2.3"), 200),
        (&trusting, Some("10.1.2.3, 127.0.0.9"), 200),
        (&trusting, None, 403),
        (&distrustful, Some("10.1.2.3"), 403),
        (&distrustful, None, 403),
    ] {
        let mut headers = vec![("authorization", &*bearer)];
        headers.extend(forwarded.map(|client| ("x-forwarded-for", client)));
        assert_eq!(auth(replica, "/auth", &headers).await.status, status, "{forwarded:?}");
    }
}

#[tokio::test]
async fn no_part_of_a_secret_is_returned() {
    let fixture = Fixture::new().await;
    for secret in ["tokd_canary", "canary"] {
        let reply = auth(&fixture.replica, "/auth", &[("authorization", &format!("Bearer {secret}"))]).await;
        assert!(!format!("{reply:?}").contains("canary"));
        let reply = fixture.post("/oauth2/introspect", &[("token", secret)]).await;
        assert!(!format!("{reply:?}").contains("canary"));
    }
}

#[tokio::test]
async fn every_gateway_uses_the_configured_header_prefix() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.integrations.ext_authz = true;
    config.integrations.identity_headers = IdentityHeaders::with_prefix("x-auth-").unwrap();
    let replica = installation.serve(config).await;
    let secret = created_with(&mut replica.root(), "acme", &["a"]).await.secret;

    let reply = auth(&replica, "/auth", &[("authorization", &format!("Bearer {secret}"))]).await;
    assert_eq!((reply.status, reply.header("x-auth-user").as_deref()), (200, Some("ada")));
    assert_eq!(reply.header("x-auth-organization").as_deref(), Some("acme"));
    assert_eq!(reply.header("x-auth-scopes").as_deref(), Some("a"));
    assert!(reply.header("x-auth-token-id").is_some() && reply.header("x-tokend-user").is_none());
    assert_eq!(
        super::ext_authz::identity_headers(&replica, &secret).await,
        ["x-auth-user", "x-auth-organization", "x-auth-token-id", "x-auth-scopes"]
    );
}
