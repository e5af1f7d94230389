//! Attacks on the guard from outside: what a request claims must neither decide how it is refused
//! nor get it past a rule, however the service behind the guard is built.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Extension, Router};
use tokend_client::{Guard, VerifiedToken, Verifier};
use tokio::net::TcpListener;

use super::asking::root;
use crate::setup::Made;
use crate::support::client::created_with;
use crate::support::http::{Reply, send};
use crate::support::replica::Replica;

async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn guard(replica: &Replica) -> Guard {
    Guard::new(Verifier::unary(root(replica)))
}

/// Creates a token with these scopes, and returns its `authorization` value.
async fn bearer(replica: &Replica, scopes: &[&str]) -> String {
    let made: Made = created_with(&mut replica.root(), "acme", scopes).await.into();
    format!("Bearer {}", made.secret)
}

async fn status(address: SocketAddr, path: &str, bearer: &str) -> u16 {
    send(address, "GET", path, &[("authorization", bearer)], "").await.status
}

/// The guarded routes' response: the user whose token was admitted, and whether its credential was
/// passed on.
async fn who(Extension(token): Extension<VerifiedToken>, headers: HeaderMap) -> String {
    format!("{} {}", token.user_id.as_str(), headers.contains_key("authorization"))
}

async fn credential_comes_along(headers: HeaderMap) -> String {
    headers.contains_key("authorization").to_string()
}

#[track_caller]
fn is_refused_over_http(reply: &Reply, content_type: &str) {
    assert_eq!(reply.status, 401, "{content_type}");
    assert_eq!(reply.header("grpc-status"), None, "{content_type}");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"), "{content_type}");
}

#[tokio::test]
async fn a_request_that_is_not_grpc_is_refused_with_an_http_status() {
    let replica = Replica::shared().await;
    let guarded = Router::new().fallback(get(who).post(who)).layer(guard(replica));
    let address = serve(guarded).await;
    for content_type in [
        "application/grpcX",
        "application/grpc",
        "application/grpc-canary",
        "application/grpc; canary",
        "application/grpc+canary",
        "application/grpc-web+canary",
        "application/grpc-web, text/html",
    ] {
        for (method, path) in
            [("GET", "/"), ("POST", "/"), ("GET", "/a.B/C"), ("POST", "/a.B/C"), ("PUT", "/a.B/C")]
        {
            let reply = send(address, method, path, &[("content-type", content_type)], "").await;
            is_refused_over_http(&reply, content_type);
        }
    }
    let twice = [("content-type", "application/grpc-web"), ("content-type", "application/grpc-web")];
    is_refused_over_http(&send(address, "POST", "/a.B/C", &twice, "").await, "two");

    // gRPC-Web comes over HTTP/1.1, by POST, to a method of a service.
    let web = [("content-type", "application/grpc-web+proto")];
    let reply = send(address, "POST", "/a.B/C", &web, "").await;
    assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some("16")));
    assert_eq!(reply.header("content-type").as_deref(), Some("application/grpc-web+proto"));
    for (method, path) in [("GET", "/a.B/C"), ("POST", "/"), ("POST", "/reports"), ("POST", "/a/b/c")] {
        is_refused_over_http(&send(address, method, path, &web, "").await, path);
    }
}

#[tokio::test]
async fn a_rule_in_a_nested_router_may_name_the_whole_or_the_remaining_path() {
    let replica = Replica::shared().await;
    let (reader, admin) = (bearer(replica, &["repo:read"]).await, bearer(replica, &["repo:*"]).await);
    for rule in ["/api/admin", "/admin"] {
        let guarded = || {
            let guard =
                guard(replica).require(["repo:read"]).unwrap().require_at(rule, ["repo:admin"]).unwrap();
            Router::new().route("/admin", get(who)).route("/", get(who)).layer(guard)
        };
        for routes in [
            Router::new().nest("/api", guarded()),
            Router::new().nest_service("/api", guarded()),
            Router::new().nest("/api", Router::new().merge(guarded())),
        ] {
            let address = serve(routes).await;
            assert_eq!(status(address, "/api/admin", &reader).await, 403, "{rule}");
            assert_eq!(status(address, "/api/admin", &admin).await, 200, "{rule}");
            assert_eq!(status(address, "/api", &reader).await, 200, "{rule}");
        }
        let twice = serve(Router::new().nest("/v1", Router::new().nest("/api", guarded()))).await;
        assert_eq!(status(twice, "/v1/api/admin", &reader).await, 403, "{rule}");
    }
}

#[tokio::test]
async fn an_open_path_is_not_open_in_another_nested_router() {
    let replica = Replica::shared().await;
    let guarded = |open: &str| {
        let guard = guard(replica).open_at(open).unwrap();
        Router::new().nest("/api", Router::new().route("/health", get(async || "well")).layer(guard))
    };
    assert_eq!(send(serve(guarded("/api/health")).await, "GET", "/api/health", &[], "").await.status, 200);
    assert_eq!(send(serve(guarded("/health")).await, "GET", "/api/health", &[], "").await.status, 401);
}

#[tokio::test]
async fn no_other_spelling_of_a_path_bypasses_a_rule() {
    let replica = Replica::shared().await;
    let reader = bearer(replica, &["repo:read"]).await;
    let guard = guard(replica).require(["repo:read"]).unwrap();
    let guard = guard.require_at("/v1/admin", ["repo:admin"]).unwrap().open_at("/health").unwrap();
    // The service behind the guard may read paths in any way.
    let address = serve(Router::new().fallback(get(async || "in")).layer(guard)).await;
    assert_eq!(status(address, "/v1/other", &reader).await, 200);
    for path in [
        "/v1/admin",
        "//v1/admin",
        "/v1//admin",
        "/v1/admin/",
        "/v1/admin?x=/v1/other",
        "/V1/Admin",
        "/v1/%61dmin",
        "/v1/%2561dmin",
        "/v1%2fadmin",
        "/v1%5cadmin",
        "/v1/./admin",
        "/v1/%2e/admin",
        "/v1/x/../admin",
        "/x/%2e%2E/v1/admin",
        "/v1/admin;x=1",
        "/v1;x/admin",
        "/v1/admin%3bx",
        "/v1/admin%00",
        "/v1/admin%20",
        "/v1/admin%3fx",
    ] {
        assert_eq!(status(address, path, &reader).await, 403, "{path}");
    }
    assert_eq!(send(address, "GET", "/health", &[], "").await.status, 200);
    for path in ["//health", "/health/", "/%68ealth", "/Health", "/health;x", "/x/../health", "/health%2f"] {
        assert_eq!(send(address, "GET", path, &[], "").await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn stacked_guards_must_all_admit_a_request() {
    let replica = Replica::shared().await;
    let (reader, both) =
        (bearer(replica, &["repo:read"]).await, bearer(replica, &["repo:read", "user:read"]).await);
    let inner = || guard(replica).require(["user:read"]).unwrap();
    let outer = || guard(replica).require(["repo:read"]).unwrap();
    for outer in [outer(), outer().leave_credential(), guard(replica).open_at("/").unwrap()] {
        let routes = Router::new().route("/", get(who)).layer(inner()).layer(guard(replica)).layer(outer);
        let address = serve(routes).await;
        let reply = send(address, "GET", "/", &[("authorization", &both)], "").await;
        assert_eq!((reply.status, &*reply.body), (200, "ada false"));
        let reply = send(address, "GET", "/", &[("authorization", &reader)], "").await;
        assert_eq!(reply.status, 403);
        assert!(reply.header("www-authenticate").unwrap().contains(r#"scope="user:read""#));
        assert_eq!(send(address, "GET", "/", &[], "").await.status, 401);
        let two = [("authorization", &*both), ("authorization", &both)];
        assert_eq!(send(address, "GET", "/", &two, "").await.status, 401);
    }
}

#[tokio::test]
async fn the_credential_is_removed_on_open_paths_too() {
    let replica = Replica::shared().await;
    let reader = bearer(replica, &["repo:read"]).await;
    for (guard, comes) in [
        (guard(replica).open_at("/").unwrap(), "false"),
        (guard(replica).open_at("/").unwrap().leave_credential(), "true"),
    ] {
        let address = serve(Router::new().route("/", get(credential_comes_along)).layer(guard)).await;
        for value in [&*reader, "Bearer nonsense", "Basic YTpi"] {
            assert_eq!(
                send(address, "GET", "/", &[("authorization", value)], "").await.body,
                comes,
                "{value}"
            );
        }
    }
}
