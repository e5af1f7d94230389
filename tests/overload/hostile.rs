//! Peers that comply with HTTP/2 formally only, or not at all: none keeps others from being served.

use std::time::Duration;

use h2::client::SendRequest;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

use super::connections::{answers, with_connections};
use crate::support::in_time;
use crate::support::replica::Replica;

/// An HTTP/2 connection without gRPC.
struct Raw {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Raw {
    async fn open(replica: &Replica) -> Self {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Returns the head of a Verify without a credential, which is refused after its message has
    /// been read.
    fn request(replica: &Replica, encoding: Option<&str>) -> Request<()> {
        let request = Request::post(format!("http://{}/tokend.v1.TokenService/Verify", replica.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = match encoding {
            Some(encoding) => request.header("grpc-encoding", encoding),
            None => request,
        };
        request.body(()).unwrap()
    }

    /// Sends these bytes as the message, and returns the status of the call.
    async fn call(&mut self, replica: &Replica, encoding: Option<&str>, message: &[u8]) -> Status {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(Self::request(replica, encoding), false).unwrap();
        body.send_data(Bytes::copy_from_slice(message), true).unwrap();
        let (head, mut body) = in_time("an answer", answer).await.unwrap().into_parts();
        while body.data().await.is_some() {}
        let trailers = body.trailers().await.unwrap();
        status(&head.headers).or_else(|| status(&trailers?)).expect("a status")
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

#[tokio::test]
async fn silent_and_slow_connections_block_nobody() {
    let replica = with_connections(4).await;
    let mut held = Vec::new();
    for said in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = TcpStream::connect(replica.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        held.push(stream);
    }

    assert!(in_time("a turn for one who speaks", answers(&mut replica.root())).await);
}

#[tokio::test]
async fn a_peer_that_opens_and_resets_endlessly_is_cut_off_and_no_other() {
    let replica = Replica::start().await;
    for known in [true, false] {
        let raw = Raw::open(&replica).await;
        let request = || {
            let mut request = Raw::request(&replica, None);
            if known {
                let bearer = format!("Bearer {}", replica.installation.root_secret);
                request.headers_mut().insert("authorization", bearer.parse().unwrap());
            }
            request
        };
        let mut requests = raw.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(request(), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        in_time("an answer", answer).await.unwrap();

        let resets = async {
            for _ in 0..100_000 {
                let Ok(mut requests) = raw.requests.clone().ready().await else { return };
                let Ok((_, mut body)) = requests.send_request(request(), false) else { return };
                body.send_reset(h2::Reason::CANCEL);
                tokio::task::yield_now().await;
            }
        };
        in_time("the flood", resets).await;

        match in_time("the end of the connection", raw.connection).await.unwrap() {
            // The connection of an unauthenticated client is closed gracefully before the flood
            // goes too far.
            Ok(()) => assert!(!known, "a flood went on to its end"),
            // The server's error, unless the client had written to the closed connection before it
            // read that.
            Err(ended) => {
                assert!(ended.is_io() || ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{ended:?}");
            }
        }
        assert!(answers(&mut replica.root()).await);
    }
}

#[tokio::test]
async fn compression_bombs_and_false_message_sizes_are_refused_unread() {
    let replica = Replica::start().await;
    let mut raw = Raw::open(&replica).await;
    // The flag, the length, and the start of the message.
    let four_gigabytes = [&[0, 0xff, 0xff, 0xff, 0xff][..], b"a little"].concat();
    let packed = [&[1, 0, 0, 0, 8][..], b"\x1f\x8b\x08\0\0\0\0\0"].concat();
    let cut_short = [0, 0, 0, 0, 200, 1, 2, 3];

    let cases: [(Option<&str>, &[u8], &[Code]); 4] = [
        (None, &four_gigabytes, &[Code::OutOfRange, Code::ResourceExhausted]),
        (Some("gzip"), &packed, &[Code::Unimplemented]),
        (None, &packed, &[Code::Internal, Code::Unimplemented]),
        (None, &cut_short, &[Code::Internal, Code::InvalidArgument]),
    ];
    for (encoding, message, expected) in cases {
        let refused = raw.call(&replica, encoding, message).await;
        assert!(expected.contains(&refused.code()), "{refused:?}");
    }

    assert!(answers(&mut replica.root()).await);
}

#[tokio::test]
async fn an_endless_message_delays_nobody_else() {
    let replica = Replica::start().await;
    let mut slow = Vec::new();
    let mut raw = Raw::open(&replica).await;
    for _ in 0..50 {
        let mut requests = raw.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(Raw::request(&replica, None), false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0, 1, 0, 7]), false).unwrap();
        slow.push((answer, body));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;

    assert!(answers(&mut replica.root()).await);
    let refused = raw.call(&replica, None, &[0, 0, 0, 0, 0]).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_missing_message_is_awaited_only_until_the_deadline_of_its_call() {
    let replica = Replica::start().await;
    let raw = Raw::open(&replica).await;
    // By the fast path, and by the router.
    for kind in ["application/grpc", "application/grpc+proto"] {
        let mut request = Raw::request(&replica, None);
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
        let mut requests = raw.requests.clone().ready().await.unwrap();
        let (answer, _unfinished) = requests.send_request(request, false).unwrap();
        let head = in_time("the end of the call", answer).await.unwrap();
        assert_eq!(status(head.headers()).unwrap().code(), Code::DeadlineExceeded, "{kind}");
    }
}
