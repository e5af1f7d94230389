//! The tower layer in front of an axum service and of a tonic one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Extension, Router};
use tokend_client::{Connection, Guard, LocalConfig, Refused, Verdict, VerifiedToken, Verifier};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::asking::{client_at, root};
use crate::setup::Made;
use crate::support::client::{created, created_with, ordinary, revoked, texts};
use crate::support::eventually;
use crate::support::http::{Reply, send};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Replica;

/// All kinds of verifiers, of a root caller.
fn verifiers(replica: &Replica) -> [Verifier; 3] {
    [
        Verifier::unary(root(replica)),
        Verifier::multiplexed(root(replica)).unwrap(),
        Verifier::local(root(replica), LocalConfig::default()).unwrap(),
    ]
}

fn guard(verifier: Verifier) -> Guard {
    Guard::new(verifier)
        .require(["repo:read"])
        .unwrap()
        .require_at("/admin", ["repo:admin", "repo:read"])
        .unwrap()
        .open_at("/health")
        .unwrap()
        .client_address(|parts| {
            parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
        })
}

/// The guarded routes' response: the user whose token was admitted, and whether its credential was
/// passed on.
async fn who(Extension(token): Extension<VerifiedToken>, headers: HeaderMap) -> String {
    format!("{} {}", token.user_id.as_str(), headers.contains_key("authorization"))
}

/// Serves guarded routes.
async fn serve(guard: Guard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/", get(who))
        .route("/admin", get(who))
        .route("/health", get(async || "well"))
        .layer(guard);
    tokio::spawn(async move {
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await.unwrap();
    });
    address
}

async fn get_with(address: SocketAddr, path: &str, credentials: &[&str]) -> Reply {
    let headers: Vec<_> = credentials.iter().map(|value| ("authorization", *value)).collect();
    send(address, "GET", path, &headers, "").await
}

/// Returns a refusal's status and challenge, after checking that its body is this JSON.
#[track_caller]
fn said(reply: &Reply, body: &str) -> (u16, Option<String>) {
    assert_eq!((&*reply.body, reply.header("content-type").as_deref()), (body, Some("application/json")));
    assert_eq!(reply.header("cache-control").as_deref(), Some("no-store"));
    (reply.status, reply.header("www-authenticate"))
}

const INVALID: &str = r#"{"error":"invalid_token"}"#;
const ELSEWHERE: &str = r#"{"error":"access_denied","verdict":"ip_not_allowed"}"#;

#[expect(clippy::unnecessary_wraps, reason = "as what is said")]
fn challenge(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn an_axum_guard_admits_exactly_what_tokend_admits() {
    let replica = Replica::shared().await;
    let mut admin = replica.root();
    let reader: Made = created_with(&mut admin, "acme", &["repo:read"]).await.into();
    let gone: Made = created_with(&mut admin, "acme", &["repo:read"]).await.into();
    revoked(&mut admin, &gone.id, "").await;
    let invalid = || challenge(r#"Bearer error="invalid_token""#);

    for verifier in verifiers(replica) {
        let address = serve(guard(verifier)).await;
        let bearer = format!("Bearer {}", reader.secret);
        // Asked of tokend the first time, later perhaps not.
        for _ in 0..3 {
            let let_in = get_with(address, "/", &[&bearer]).await;
            assert_eq!((let_in.status, &*let_in.body), (200, "ada false"));
        }
        assert_eq!(get_with(address, "/health", &[]).await.body, "well");
        assert_eq!(said(&get_with(address, "/", &[]).await, INVALID), (401, challenge("Bearer")));
        let revoked = r#"{"error":"invalid_token","verdict":"revoked"}"#;
        let malformed = r#"{"error":"invalid_token","verdict":"malformed"}"#;
        for (bad, body) in [
            (&["Basic YTpi"][..], INVALID),
            (&[&bearer, &bearer], INVALID),
            (&["Bearer nonsense"], malformed),
            (&[&format!("Bearer {}", gone.secret)], revoked),
        ] {
            assert_eq!(said(&get_with(address, "/", bad).await, body), (401, invalid()), "{bad:?}");
        }
        let lacking = r#"Bearer error="insufficient_scope", scope="repo:admin""#;
        let body = r#"{"error":"insufficient_scope","scope":"repo:admin","verdict":"missing_scope"}"#;
        assert_eq!(said(&get_with(address, "/admin", &[&bearer]).await, body), (403, challenge(lacking)));
    }
}

#[tokio::test]
async fn paths_without_a_rule_are_closed_if_configured() {
    let replica = Replica::shared().await;
    let reader: Made = created_with(&mut replica.root(), "acme", &["repo:read"]).await.into();
    let closed = Guard::new(Verifier::unary(root(replica)))
        .require_at("/", ["repo:read"])
        .unwrap()
        .open_at("/health")
        .unwrap()
        .closed_elsewhere();
    let address = serve(closed).await;
    let bearer = format!("Bearer {}", reader.secret);

    assert_eq!(get_with(address, "/", &[&bearer]).await.body, "ada false");
    assert_eq!(get_with(address, "/health", &[]).await.body, "well");
    let forgotten = get_with(address, "/admin", &[&bearer]).await;
    assert_eq!(said(&forgotten, r#"{"error":"access_denied"}"#), (403, None));
}

#[tokio::test]
async fn the_client_address_is_checked_if_it_is_known() {
    let replica = Replica::shared().await;
    let mut admin = replica.root();
    let mut bound = async |network: &str| {
        let request = tokend::api::proto::CreateTokenRequest {
            scopes: texts(&["repo:read"]),
            allowed_cidrs: texts(&[network]),
            ..ordinary()
        };
        format!("Bearer {}", created(&mut admin, request).await.secret)
    };
    let (here, elsewhere) = (bound("127.0.0.0/8").await, bound("192.0.2.0/24").await);

    for verifier in verifiers(replica) {
        let address = serve(guard(verifier.clone())).await;
        for _ in 0..3 {
            assert_eq!(get_with(address, "/", &[&here]).await.status, 200);
            assert_eq!(said(&get_with(address, "/", &[&elsewhere]).await, ELSEWHERE), (403, None));
        }
        let unknowing = serve(Guard::new(verifier.clone()).leave_credential()).await;
        assert_eq!(get_with(unknowing, "/", &[&here]).await.status, 403);
        let far =
            Guard::new(verifier).client_address(|_| Some(IpAddr::from([192, 0, 2, 7]))).leave_credential();
        assert_eq!(get_with(serve(far).await, "/", &[&elsewhere]).await.body, "ada true");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_checked_is_refused() {
    let replica = Replica::start().await;
    let reader: Made = created_with(&mut replica.root(), "acme", &["repo:read"]).await.into();
    let proxy = Proxy::to_port(replica.address, LinkState::Cut).await;
    let client = client_at(proxy.address(), &replica.installation.root_secret);
    let address = serve(guard(Verifier::unary(client))).await;
    let bearer = format!("Bearer {}", reader.secret);

    let away = get_with(address, "/", &[&bearer]).await;

    assert_eq!(said(&away, r#"{"error":"temporarily_unavailable"}"#), (503, None));
    assert_eq!(away.header("retry-after").as_deref(), Some("1"));
    assert_eq!(get_with(address, "/health", &[]).await.status, 200);
    assert_eq!(get_with(address, "/", &[]).await.status, 401);
}

/// Serves gRPC's health service behind a guard; it fails if no verified token was passed on.
async fn serve_grpc(guard: Guard) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, _) = tonic_health::server::health_reporter();
    let health = HealthServer::with_interceptor(
        HealthService::from_health_reporter(reporter),
        |request: Request<()>| match request.extensions().get::<VerifiedToken>() {
            Some(token) if token.user_id.as_str() == "ada" => Ok(request),
            _ => Err(Status::internal("no token came along")),
        },
    );
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().layer(guard).add_service(health).serve_with_incoming(incoming));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

async fn check(channel: &Channel, credential: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(value) = credential {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    HealthClient::new(channel.clone()).check(request).await.map(|_| ())
}

#[tokio::test]
async fn a_tonic_guard_admits_exactly_what_tokend_admits_and_refuses_with_grpc_codes() {
    let replica = Replica::shared().await;
    let mut admin = replica.root();
    let reader: Made = created_with(&mut admin, "acme", &["repo:read"]).await.into();
    let other: Made = created_with(&mut admin, "acme", &["repo:write"]).await.into();
    let bearer = |token: &Made| format!("Bearer {}", token.secret);

    for verifier in verifiers(replica) {
        let guarded = Guard::new(verifier).require_at("/grpc.health.v1.Health/Check", ["repo:read"]).unwrap();
        let channel = serve_grpc(guarded).await;
        let refused = async |credential: Option<String>| {
            check(&channel, credential.as_deref()).await.unwrap_err().code()
        };
        for _ in 0..3 {
            check(&channel, Some(&bearer(&reader))).await.unwrap();
            assert_eq!(refused(Some(bearer(&other))).await, Code::PermissionDenied);
        }
        assert_eq!(refused(None).await, Code::Unauthenticated);
        assert_eq!(refused(Some("Bearer nonsense".to_owned())).await, Code::Unauthenticated);
    }

    let proxy = Proxy::to_port(replica.address, LinkState::Cut).await;
    let away = client_at(proxy.address(), &replica.installation.root_secret);
    let channel = serve_grpc(Guard::new(Verifier::unary(away))).await;
    assert_eq!(check(&channel, Some(&bearer(&reader))).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_kind_of_verifier() {
    let replica = Replica::shared().await;
    let mut admin = replica.root();
    for verifier in verifiers(replica) {
        let reader: Made = created_with(&mut admin, "acme", &["repo:read"]).await.into();
        let address = serve(guard(verifier)).await;
        let bearer = format!("Bearer {}", reader.secret);
        for _ in 0..3 {
            assert_eq!(get_with(address, "/", &[&bearer]).await.status, 200);
        }
        revoked(&mut admin, &reader.id, "").await;
        eventually("it is refused", async || {
            (get_with(address, "/", &[&bearer]).await.status == 401).then_some(())
        })
        .await;
        assert_eq!(get_with(address, "/", &[&bearer]).await.status, 401);
    }
}

#[tokio::test]
async fn every_refusal_and_nothing_else_is_reported_with_its_reason() {
    let replica = Replica::start().await;
    let reader: Made = created_with(&mut replica.root(), "acme", &["repo:read"]).await.into();
    let other: Made = created_with(&mut replica.root(), "acme", &[]).await.into();
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let connection = Connection::to(format!("http://{}", proxy.address()))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(Duration::from_secs(2));
    let reported = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&reported);
    let guard = Guard::new(Verifier::unary(connection.open().unwrap()))
        .require_at("/", ["repo:read"])
        .unwrap()
        .closed_elsewhere()
        .on_refusal(move |parts, refused| {
            let reason = match refused {
                Refused::Credential => "credential",
                Refused::Verdict(Verdict::Malformed) => "malformed",
                Refused::Verdict(Verdict::MissingScope) => "scope",
                Refused::Closed => "closed",
                Refused::Unknown(_) => "unknown",
                _ => "something else",
            };
            telling.lock().unwrap().push(format!("{} {reason}", parts.uri.path()));
        });
    let address = serve(guard).await;
    let get = async |path: &str, secret: &str| {
        let authorization = format!("Bearer {secret}");
        let headers: &[&str] = if secret.is_empty() { &[] } else { &[&authorization] };
        get_with(address, path, headers).await.status
    };

    assert_eq!(get("/", &reader.secret).await, 200);
    assert_eq!(get("/", "").await, 401);
    assert_eq!(get("/", "nonsense").await, 401);
    assert_eq!(get("/", &other.secret).await, 403);
    assert_eq!(get("/admin", &reader.secret).await, 403);
    proxy.set(LinkState::Cut);
    assert_eq!(get("/", &reader.secret).await, 503);

    let reported = std::mem::take(&mut *reported.lock().unwrap());
    assert_eq!(reported, ["/ credential", "/ malformed", "/ scope", "/admin closed", "/ unknown"]);
}

/// What is logged at WARN and above, on this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_is_logged_once_with_its_cause() {
    let replica = Replica::start().await;
    let reader: Made = created_with(&mut replica.root(), "acme", &["repo:read"]).await.into();
    let proxy = Proxy::to_port(replica.address, LinkState::Cut).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone());
    // With a single subscriber in the process, tracing would cache another test's lack of interest
    // in a log line.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    for local in [false, true] {
        let connection = Connection::to(format!("http://{}", proxy.address()))
            .secret((&*replica.installation.root_secret).into())
            .call_timeout(Duration::from_millis(300));
        let client = connection.open().unwrap();
        let verifier = if local {
            Verifier::local(client, LocalConfig::default()).unwrap()
        } else {
            Verifier::unary(client)
        };
        let address = serve(guard(verifier)).await;
        let bearer = format!("Bearer {}", reader.secret);
        for _ in 0..5 {
            assert_eq!(get_with(address, "/", &[&bearer]).await.status, 503);
        }
        let written = String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
        assert_eq!(written.matches("WARN").count(), 1, "{written}");
        assert!(written.contains("cause=") && !written.contains(&reader.secret), "{written}");
    }
}
