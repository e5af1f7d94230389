//! gRPC-Web, as from a browser: the response to a page of each origin, and that a call has the same
//! result. A real browser is in `browser`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use sqlx::Connection as _;
use tokend::api::http::config::IntegrationsConfig;
use tokend::api::limits::MAX_REQUEST_BYTES;
use tokend::api::origin::Origin;
use tokend::api::proto::{
    Consistency, GetTokenRequest, GetTokenResponse, Verdict, VerifyRequest, VerifyResponse,
};
use tonic::Code;

use super::asking::{Case, Decision, Fixture, ORIGIN};
use super::rpcs::decision_of_verify;
use crate::support::client::{created, created_with, ordinary};
use crate::support::http::{Reply, send};
use crate::support::replica::{Installation, Replica};

const VERIFY: &str = "/tokend.v1.TokenService/Verify";

/// Posts a message by gRPC-Web, as text: this suite's HTTP client reads nothing else.
async fn post(replica: &Replica, path: &str, headers: &[(&str, &str)], message: &impl Message) -> Reply {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    frame.extend(message.encode_to_vec());
    let mut all =
        vec![("content-type", "application/grpc-web-text"), ("accept", "application/grpc-web-text")];
    all.extend_from_slice(headers);
    send(replica.address, "POST", path, &all, &BASE64_STANDARD.encode(frame)).await
}

/// Reads the only message of a response, or its status.
fn read<M: Message + Default>(reply: &Reply) -> Result<M, Code> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let status = |text: &str| Err(Code::from_bytes(text.trim().as_bytes()));
    if let Some(code) = reply.header("grpc-status") {
        return status(&code);
    }
    // Each piece of the body is encoded separately, in one HTTP chunk, with its length in the line
    // before.
    let pieces = reply.body.lines().skip(1).step_by(2);
    let bytes: Vec<u8> = pieces.flat_map(|piece| BASE64_STANDARD.decode(piece).unwrap()).collect();
    let (mut message, mut rest) = (None, &*bytes);
    while let [kind, a, b, c, d, behind @ ..] = rest {
        let (frame, next) = behind.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        if *kind == 0 {
            message = Some(M::decode(frame).unwrap());
        } else {
            let trailers = std::str::from_utf8(frame).unwrap();
            let code = trailers.lines().find_map(|line| line.strip_prefix("grpc-status:")).unwrap();
            if code.trim() != "0" {
                return status(code);
            }
        }
        rest = next;
    }
    Ok(message.expect("a message"))
}

/// Sends a case as Verify by gRPC-Web.
pub(crate) async fn ask(fixture: &Fixture, case: &Case) -> Decision {
    let bearer = format!("Bearer {}", fixture.backend);
    let headers = [("authorization", &*bearer), ("origin", ORIGIN)];
    let reply = post(&fixture.replica, VERIFY, &headers, &case.request()).await;
    decision_of_verify(read(&reply))
}

#[tokio::test]
async fn a_page_of_a_listed_origin_gets_its_cors_headers() {
    let fixture = Fixture::new().await;
    let asked = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
    ];

    let reply = send(fixture.replica.address, "OPTIONS", VERIFY, &asked, "").await;

    assert_eq!(reply.status, 204, "{reply:?}");
    let said = |name: &str| reply.header(name).unwrap_or_default();
    assert_eq!(said("access-control-allow-origin"), ORIGIN);
    assert_eq!(said("access-control-allow-methods"), "POST");
    let allowed = said("access-control-allow-headers");
    let allowed: Vec<&str> = allowed.split(", ").collect();
    // Including the headers that OpenTelemetry adds to each call of a page.
    for header in ["authorization", "content-type", "grpc-timeout", "traceparent", "tracestate", "baggage"] {
        assert!(allowed.contains(&header), "{header}: {allowed:?}");
    }
    assert_eq!(said("vary"), "origin");
    // Cookies and other credentials of the browser prove nothing.
    assert_eq!(reply.header("access-control-allow-credentials"), None);

    let bearer = format!("Bearer {}", fixture.backend);
    let request = VerifyRequest { secret: "nonsense".to_owned(), ..VerifyRequest::default() };
    let reply =
        post(&fixture.replica, VERIFY, &[("origin", ORIGIN), ("authorization", &bearer)], &request).await;
    assert_eq!(reply.header("access-control-allow-origin").unwrap(), ORIGIN);
    assert!(reply.header("access-control-expose-headers").unwrap().contains("grpc-status-details-bin"));
    assert_eq!(read::<VerifyResponse>(&reply).unwrap().verdict(), Verdict::Malformed);
}

#[tokio::test]
async fn any_other_origin_is_refused() {
    let fixture = Fixture::new().await;
    let bearer = format!("Bearer {}", fixture.backend);
    let request = VerifyRequest { secret: fixture.backend.clone(), ..VerifyRequest::default() };

    let port = format!("{ORIGIN}:8443");
    let below = format!("{ORIGIN}.evil.example");
    for origin in ["https://evil.example", "null", "", "*", &port, &below, "http://admin.example.org"] {
        let preflight = [("origin", origin), ("access-control-request-method", "POST")];
        let reply = send(fixture.replica.address, "OPTIONS", VERIFY, &preflight, "").await;
        assert_eq!(reply.status, 403, "{origin:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None);

        let headers = [("origin", origin), ("authorization", &*bearer)];
        let reply = post(&fixture.replica, VERIFY, &headers, &request).await;
        assert_eq!((reply.status, &*reply.body), (403, ""), "{origin:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        // Another content type does not help either: for the second, browsers send no preflight.
        for (kind, status) in [("application/grpc", 403), ("text/plain", 415)] {
            let headers = [("origin", origin), ("authorization", &*bearer), ("content-type", kind)];
            assert_eq!(send(fixture.replica.address, "POST", VERIFY, &headers, "a").await.status, status);
        }
    }
    let twice = [("origin", ORIGIN), ("origin", "https://evil.example"), ("authorization", &*bearer)];
    assert_eq!(post(&fixture.replica, VERIFY, &twice, &request).await.status, 403);
}

#[tokio::test]
async fn a_grpc_web_call_has_the_same_checks_and_limits_as_every_call() {
    let fixture = Fixture::new().await;
    let made = created(&mut fixture.replica.root(), ordinary()).await;
    let outsider = created_with(&mut fixture.replica.root(), "acme", &["plain"]).await.secret;
    let token_id = made.token.unwrap().id;
    let get = GetTokenRequest { token_id };
    let path = "/tokend.v1.TokenService/GetToken";

    for (caller, expected) in [
        (None, Code::Unauthenticated),
        (Some("nonsense"), Code::Unauthenticated),
        (Some(&*outsider), Code::PermissionDenied),
        (Some(&*fixture.backend), Code::PermissionDenied),
    ] {
        let bearer = caller.map(|caller| format!("Bearer {caller}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", &**bearer)).collect();
        let reply = post(&fixture.replica, path, &headers, &get).await;
        assert_eq!(read::<GetTokenResponse>(&reply).unwrap_err(), expected);
    }
    let bearer = format!("Bearer {}", fixture.replica.installation.root_secret);
    let reply = post(&fixture.replica, path, &[("authorization", &bearer)], &get).await;
    assert_eq!(read::<GetTokenResponse>(&reply).unwrap().token.unwrap().id, get.token_id);

    let huge = VerifyRequest { secret: "x".repeat(MAX_REQUEST_BYTES), ..VerifyRequest::default() };
    let reply = post(&fixture.replica, VERIFY, &[("authorization", &bearer)], &huge).await;
    assert_eq!(read::<VerifyResponse>(&reply).unwrap_err(), Code::OutOfRange);
    // A deadline that passes before the read, which waits for a lock, can end.
    let mut holder = fixture.replica.installation.database.connect().await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let full = VerifyRequest { consistency: Consistency::Full.into(), ..VerifyRequest::default() };
    let full = VerifyRequest { secret: outsider, ..full };
    let headers = [("authorization", &*bearer), ("grpc-timeout", "1n")];
    let reply = post(&fixture.replica, VERIFY, &headers, &full).await;
    // Which timeout expires first is not specified.
    let code = read::<VerifyResponse>(&reply).unwrap_err();
    assert!(matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
}

#[tokio::test]
async fn a_native_client_is_served_as_well() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.integrations = IntegrationsConfig {
        web_origins: vec![Origin::parse(ORIGIN).unwrap()],
        ..IntegrationsConfig::default()
    };
    let replica = installation.serve(config).await;
    let request = VerifyRequest { secret: installation.root_secret.clone(), ..VerifyRequest::default() };
    assert_eq!(replica.root().verify(request).await.unwrap().get_ref().verdict(), Verdict::Valid);
}
