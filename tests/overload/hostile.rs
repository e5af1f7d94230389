//! Peers that comply with HTTP/2 formally only, or not at all: none keeps others from being served.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use h2::client::SendRequest;
use tokend::admission::request_memory::RequestLimiter;
use tokend::metrics::Metrics;
use tokend::transport::listener::{Limits, OverLimit, accept};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

use super::connections::{answers, with_connections};
use crate::support::replica::Replica;
use crate::support::{eventually, http, in_time};

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

/// Opens a connection from 127.1.`from` with the preface of HTTP/2 and these frames.
async fn sending(replica: &Replica, from: (u8, u8), frames: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 1, from.0, from.1], 0).into()).unwrap();
    let mut stream = socket.connect(replica.address).await.unwrap();
    let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // Fails if the server closes it first.
    let _ = stream.write_all(&[&begin[..], frames].concat()).await;
    stream
}

#[tokio::test]
async fn little_is_read_from_an_unauthenticated_peer_before_its_calls_begin() {
    const SENT: usize = 400 << 10;
    let metrics = Arc::new(Metrics::new().unwrap());
    let socket = TcpSocket::new_v4().unwrap();
    // As much as the network of an established connection may have on its way.
    socket.set_recv_buffer_size(1 << 20).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { most: 8, idle: Duration::from_mins(1), age: None, over_limit: OverLimit::Wait };
    let requests = RequestLimiter::new(1 << 20, Duration::from_secs(10), metrics.work.requests.clone());
    let mut incoming = accept(listener, None, limits, &requests, metrics);
    let mut peer = TcpStream::connect(address).await.unwrap();
    let pings = b"\0\0\x08\x06\0\0\0\0\0 a ping ".repeat(SENT / 17);
    let sending = tokio::spawn(async move {
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.write_all(&pings).await.unwrap();
        peer
    });
    let mut connection = in_time("the connection", incoming.next()).await.unwrap();
    let _peer = in_time("all is sent", sending).await.unwrap();

    // What is read until the task has to wait; calls begin then.
    let mut bursts = Vec::new();
    while bursts.iter().sum::<usize>() < SENT / 17 * 17 {
        let burst = poll_fn(|context| {
            let (mut bytes, mut read) = (vec![0; 16 << 10], 0);
            loop {
                let mut buffer = ReadBuf::new(&mut bytes);
                match Pin::new(&mut connection).poll_read(context, &mut buffer) {
                    Poll::Ready(outcome) => outcome.unwrap(),
                    Poll::Pending if read == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(read),
                }
                read += buffer.filled().len();
            }
        });
        bursts.push(in_time("more", burst).await);
    }
    assert!(bursts.iter().all(|burst| *burst < 160 << 10), "{bursts:?}");
}

#[tokio::test]
async fn a_flood_of_unauthenticated_connections_closes_its_own_and_no_newcomers() {
    let replica = Replica::start().await;
    let taken = async || {
        let (_, text) = http::get(replica.http, "/metrics").await;
        let line = text.lines().find(|line| line.starts_with("tokend_request_bytes "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // A head whose end never comes counts for what it may become.
    let unended = b"\0\0\x01\x01\0\0\0\0\x01\x83";
    let mut open = Vec::new();
    for number in 0..1_200_u32 {
        let from = (1, u8::try_from(number % 40).unwrap() + 1);
        open.push(sending(&replica, from, unended).await);
    }
    let most = f64::from(32 << 20);
    eventually("the flood is counted", async || (taken().await > 0.9 * most).then_some(())).await;
    // Other addresses take what is left, by ever smaller amounts.
    let ping = b"\0\0\x08\x06\0\0\0\0\0 a ping ";
    for (last, pings) in (1..).zip([4_000, 2_000, 1_000, 500, 250, 120, 60, 30, 15, 7, 3, 1].repeat(20)) {
        open.push(sending(&replica, (2, last), &ping.repeat(pings)).await);
    }

    for _ in 0..20 {
        assert!(in_time("an answer", answers(&mut replica.root())).await, "a newcomer was not served");
    }
    // Nor is anybody refused whose message comes in pieces, or who shows no credential.
    for _ in 0..20 {
        let mut raw = Raw::open(&replica).await;
        let refused = raw.call(&replica, None, &[0, 0, 0, 0, 0]).await;
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let (_, text) = http::get(replica.http, "/metrics").await;
    assert!(!text.contains("tokend_requests_refused_total{reason=\"evicted\"} 0\n"), "nobody was evicted");
}
