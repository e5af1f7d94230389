//! What unauthenticated clients are told: the limits of a connection, and why a request is refused.

use std::collections::HashMap;

use h2::client::SendRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use tonic::{Code, Status};

use super::program::{Running, TestDir};
use super::unauthenticated::{CALL, LONGEST, block, connect, frame, head, methods, raw, serve};

/// Calls a method with the start of a message; returns the HTTP status, and the gRPC code.
async fn answer(requests: &SendRequest<Bytes>, head: Request<()>, message: &[u8]) -> (u16, Option<Code>) {
    let mut requests = requests.clone().ready().await.unwrap();
    let (answer, mut body) = requests.send_request(head, false).unwrap();
    // Fails if the call has been refused already.
    let _ = body.send_data(Bytes::copy_from_slice(message), false);
    let (head, mut body) = answer.await.unwrap().into_parts();
    while body.data().await.is_some() {}
    let trailers = body.trailers().await.unwrap_or_default().unwrap_or(head.headers);
    (head.status.as_u16(), Status::from_header_map(&trailers).map(|status| status.code()))
}

#[test]
fn every_method_refuses_a_long_message_before_it_arrives() {
    let test_dir = TestDir::new();
    let (_server, address) = serve(&test_dir, "127.0.0.1:0");
    Runtime::new().unwrap().block_on(async {
        for path in methods(&address).await {
            let (requests, _connection) = connect(&address, 1).await;
            let most: u32 = if path.starts_with("/envoy.") { 128 << 10 } else { 64 << 10 };
            let refused = tokio::time::timeout(LONGEST, async {
                let call = head(&path, "application/grpc", (0, 0));
                let announced = [&[0][..], &(most + 1).to_be_bytes(), b"and no more"].concat();
                let code = match path.rsplit_once('/').unwrap().1 {
                    // The caller is authenticated before anything is read.
                    "VerifyStream" => Code::Unauthenticated,
                    // Envoy is told what to return to its client.
                    _ if path.starts_with("/envoy.") => Code::Ok,
                    _ => Code::OutOfRange,
                };
                assert_eq!(answer(&requests, call, &announced).await, (200, Some(code)), "{path}");
                for headers in [(1, 17 << 10), (100, 1)] {
                    let call = head(&path, "application/grpc", headers);
                    assert_eq!(answer(&requests, call, b"").await, (431, None), "{path} {headers:?}");
                }
            });
            assert!(refused.await.is_ok(), "{path} waits for what it refuses");
        }
    });
}

#[test]
fn a_connection_gets_its_limits_in_settings() {
    let test_dir = TestDir::new();
    let (_server, address) = serve(&test_dir, "127.0.0.1:0");
    Runtime::new().unwrap().block_on(async {
        let mut stream = raw(&address, (0, 1)).await;
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, b"")].concat();
        stream.write_all(&begin).await.unwrap();
        let (mut settings, mut window) = (HashMap::new(), None);
        while settings.is_empty() || window.is_none() {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                4 => settings.extend(payload.chunks(6).map(|setting| {
                    let (name, value) = setting.split_at(2);
                    (name[1], u32::from_be_bytes(value.try_into().unwrap()))
                })),
                8 => window = Some(u32::from_be_bytes((&*payload).try_into().unwrap())),
                _ => {}
            }
        }
        // Concurrent calls, unread bytes per call, bytes of a head; then unread bytes of all calls.
        let told = [3, 4, 6].map(|name| settings.get(&name).copied());
        assert_eq!(told, [Some(256), Some(16 << 10), Some(16 << 10)]);
        assert_eq!(window, Some((384 << 10) - 65_535));
    });
}

/// Authorities that are not hosts: several addresses, as grpcio writes them, and names of Envoy clusters.
const NO_HOSTS: [&str; 3] = ["127.0.0.1:1,127.0.0.1:2", "outbound|50051||canary", "clusters/canary"];

/// Makes calls with these authorities on a new connection; returns the error code that reset each stream.
async fn resets(address: &str, authorities: &[&str]) -> Vec<u32> {
    let mut stream = raw(address, (0, 1)).await;
    let mut sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, b"")].concat();
    for (authority, number) in authorities.iter().zip((1..).step_by(2)) {
        let mut call = CALL;
        call[3].1 = authority;
        sent.extend(frame(1, 5, number, &block(&call)));
    }
    stream.write_all(&sent).await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < authorities.len() {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == 3 {
            reasons.push(u32::from_be_bytes((&*payload).try_into().unwrap()));
        }
    }
    reasons
}

#[test]
fn an_invalid_authority_is_refused_and_rarely_logged_with_the_remedy() {
    const PROTOCOL_ERROR: u32 = 1;
    let test_dir = TestDir::new();
    let (mut server, address) = serve(&test_dir, "127.0.0.1:0");
    Runtime::new().unwrap().block_on(async {
        for _ in 0..40 {
            assert_eq!(resets(&address, &NO_HOSTS).await, [PROTOCOL_ERROR; 3]);
        }
    });
    let lines = |server: &Running| -> Vec<String> {
        let log = server.stderr();
        log.lines().filter(|line| line.contains(":authority is no host")).map(ToOwned::to_owned).collect()
    };
    // Ten per network in ten seconds.
    server.await_that("enough lines", |server| lines(server).len() >= 10);
    let (lines, log) = (lines(&server), server.stderr());
    assert!(lines.len() < 40, "{} lines", lines.len());
    for part in [" WARN ", "address=127.0.0.1:", "grpc.default_authority", "envoy_grpc"] {
        assert!(lines.iter().all(|line| line.contains(part)), "{part}: {lines:?}");
    }
    // Nothing else that h2 logs about strangers appears.
    assert!(!log.contains("canary") && !log.contains("h2::"), "{log}");
}
