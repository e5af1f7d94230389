//! The requests of Verify and `VerifyStream` in every shape that gRPC's framing allows, and some
//! that it does not: the fast path responds as the router does. A content type that only the router
//! accepts distinguishes the two.

use h2::client::SendRequest;
use prost::Message as _;
use tokend::api::proto::{Verdict, VerifyRequest, VerifyResponse, VerifyStreamRequest, VerifyStreamResponse};
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

use crate::support::client::{created, ordinary, question};
use crate::support::in_time;
use crate::support::replica::Replica;

const PAST_THE_ROUTER: &str = "application/grpc";
const BY_THE_ROUTER: &str = "application/grpc+proto";

/// The body of a request: its DATA frames, and its end.
struct Sent {
    frames: Vec<Vec<u8>>,
    end: End,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With the last of its frames.
    Itself,
    /// With an empty frame after them.
    Empty,
    Trailers,
}

/// The response.
#[derive(Debug, PartialEq)]
struct Answered {
    head: HeaderMap,
    code: Code,
    message: String,
    verdicts: Vec<Verdict>,
}

struct Peer {
    requests: SendRequest<Bytes>,
    secret: String,
    service: String,
}

impl Peer {
    async fn connect(replica: &Replica) -> Self {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let service = format!("http://{}/tokend.v1.TokenService", replica.address);
        Self { requests, secret: replica.installation.root_secret.clone(), service }
    }

    async fn send(&self, rpc: Rpc, content_type: &str, headers: &[(&str, &str)], sent: &Sent) -> Answered {
        let mut request = Request::post(format!("{}/{rpc:?}", self.service))
            .header("content-type", content_type)
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.secret));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        for (number, frame) in (1..).zip(&sent.frames) {
            let ends = sent.end == End::Itself && number == sent.frames.len();
            body.send_data(Bytes::copy_from_slice(frame), ends).unwrap();
        }
        match sent.end {
            End::Itself => {}
            End::Empty => body.send_data(Bytes::new(), true).unwrap(),
            End::Trailers => body.send_trailers(HeaderMap::new()).unwrap(),
        }
        let (head, mut body) = in_time("an answer", answer).await.unwrap().into_parts();
        let mut data = Vec::new();
        while let Some(read) = body.data().await {
            data.extend_from_slice(&read.unwrap());
        }
        let trailers = body.trailers().await.unwrap();
        let head = head.headers;
        let status = Status::from_header_map(&head).or_else(|| Status::from_header_map(&trailers?));
        let status = status.expect("a status");
        let verdicts = messages(&data).map(|message| rpc.verdict(message)).collect();
        Answered { head, code: status.code(), message: status.message().to_owned(), verdicts }
    }
}

/// The RPCs of the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rpc {
    Verify,
    VerifyStream,
}

impl Rpc {
    fn message(self, request: VerifyRequest) -> Vec<u8> {
        match self {
            Self::Verify => request.encode_to_vec(),
            Self::VerifyStream => VerifyStreamRequest { request: Some(request) }.encode_to_vec(),
        }
    }

    fn verdict(self, message: &[u8]) -> Verdict {
        match self {
            Self::Verify => VerifyResponse::decode(message).unwrap().verdict(),
            Self::VerifyStream => {
                VerifyStreamResponse::decode(message).unwrap().response.expect("a response").verdict()
            }
        }
    }
}

/// Iterates over consecutive messages.
fn messages(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (prefix, rest) = data.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes(*prefix.last_chunk().unwrap());
        let (message, rest) = rest.split_at(length as usize);
        data = rest;
        Some(message)
    })
}

/// Encodes a message with its prefix.
fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![compressed];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn every_framing_gets_the_response_of_the_router() {
    let replica = Replica::shared().await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    let peer = Peer::connect(replica).await;
    for rpc in [Rpc::Verify, Rpc::VerifyStream] {
        let message = rpc.message(question(&secret, &[]));
        let whole = framed(0, &message);
        let (prefix, rest) = whole.split_at(3);
        let long = framed(0, &rpc.message(question(&"x".repeat(70_000), &[])));
        let one = (Code::Ok, &[Verdict::Valid][..]);
        let refused = |code| (code, &[][..]);
        // A stream responds to each message, up to an invalid one.
        let stream = rpc == Rpc::VerifyStream;
        let by_rpc = |streamed: (Code, &'static [Verdict]), single| if stream { streamed } else { single };
        let two = by_rpc((Code::Ok, &[Verdict::Valid; 2]), one);
        let none = by_rpc((Code::Ok, &[]), refused(Code::Internal));
        let after_one = by_rpc((Code::Internal, &[Verdict::Valid]), refused(Code::Internal));
        let empty = by_rpc((Code::InvalidArgument, &[]), (Code::Ok, &[Verdict::Malformed]));

        let shapes = [
            ("one frame", vec![whole.clone()], one),
            ("a frame for each byte", whole.iter().map(|byte| vec![*byte]).collect(), one),
            ("the prefix in two", vec![prefix.to_vec(), rest.to_vec()], one),
            ("an empty frame first", vec![vec![], whole.clone()], one),
            ("two messages", vec![[whole.clone(), whole.clone()].concat()], two),
            ("one and a half, then the rest", vec![[&whole, prefix].concat(), rest.to_vec()], two),
            ("one, then one that is none", vec![whole.clone(), framed(0, &[0xff; 9])], after_one),
            ("nothing", vec![vec![]], none),
            ("half a prefix", vec![prefix.to_vec()], refused(Code::Internal)),
            ("half a message", vec![whole[..20].to_vec()], refused(Code::Internal)),
            ("a message that is none", vec![framed(0, &[0xff; 9])], refused(Code::Internal)),
            ("compressed by nothing", vec![framed(1, &message)], refused(Code::Internal)),
            ("a flag that there is not", vec![framed(7, &message)], refused(Code::Internal)),
            ("an empty message", vec![framed(0, &[])], empty),
            ("one too long", vec![long], refused(Code::OutOfRange)),
        ];
        for (shape, frames, expected) in shapes {
            for end in [End::Itself, End::Empty, End::Trailers] {
                // Trailers, which no client sends, end a stream wherever they are.
                let cut = stream && end == End::Trailers && shape.starts_with("half");
                let (code, verdicts) = if cut { (Code::Ok, &[][..]) } else { expected };
                let sent = Sent { frames: frames.clone(), end };
                let past = peer.send(rpc, PAST_THE_ROUTER, &[], &sent).await;
                assert_eq!(
                    (past.code, &*past.verdicts),
                    (code, verdicts),
                    "{rpc:?}, {shape}, {end:?}: {past:?}"
                );
                assert_eq!(
                    past,
                    peer.send(rpc, BY_THE_ROUTER, &[], &sent).await,
                    "{rpc:?}, {shape}, {end:?}"
                );
            }
        }

        let sent = Sent { frames: vec![whole], end: End::Itself };
        let compressed = peer.send(rpc, PAST_THE_ROUTER, &[("grpc-encoding", "gzip")], &sent).await;
        assert_eq!(compressed.code, Code::Unimplemented, "{compressed:?}");
        let named = peer.send(rpc, PAST_THE_ROUTER, &[("grpc-encoding", "identity")], &sent).await;
        assert_eq!((named.code, &*named.verdicts), one);
    }
}

#[tokio::test]
async fn a_request_without_a_grpc_content_type_is_not_read() {
    let replica = Replica::start().await;
    let peer = Peer::connect(&replica).await;
    let body = Bytes::from(framed(0, &question(&peer.secret, &[]).encode_to_vec()));
    for path in ["Verify", "CreateToken"] {
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/json"),
            Some("application/grpcX"),
            Some("application/grpc+json"),
            // Because no origins are configured.
            Some("application/grpc-web"),
            Some("application/grpc-web+proto"),
            Some("application/grpc-web-text"),
        ] {
            let url = format!("http://{}/tokend.v1.TokenService/{path}", replica.address);
            let mut request = Request::post(url).header("authorization", format!("Bearer {}", peer.secret));
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let mut requests = peer.requests.clone().ready().await.unwrap();
            let (answer, mut sent) = requests.send_request(request.body(()).unwrap(), false).unwrap();
            sent.send_data(body.clone(), true).unwrap();
            let answer = in_time("an answer", answer).await.unwrap();
            assert_eq!(answer.status(), 415, "{path} {kind:?}");
        }
    }
}

#[tokio::test]
async fn grpc_needs_post() {
    let replica = Replica::start().await;
    let peer = Peer::connect(&replica).await;
    for method in ["GET", "PUT", "OPTIONS"] {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/tokend.v1.TokenService/CreateToken", replica.address))
            .header("content-type", "application/grpc");
        let mut requests = peer.requests.clone().ready().await.unwrap();
        let (answer, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        let answer = in_time("an answer", answer).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("grpc-status")), (405, None), "{method}");
    }
}
