//! Verify's requests in every shape that the framing of gRPC allows, and some that it does not: what is read past
//! the router is answered as the router answers. A content type that only the router takes tells the two apart.

use h2::client::SendRequest;
use prost::Message as _;
use tokend::grpc::proto::{Verdict, VerifyResponse};
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

use crate::support::client::{created, ordinary, question};
use crate::support::in_time;
use crate::support::replica::Replica;

const PAST_THE_ROUTER: &str = "application/grpc";
const BY_THE_ROUTER: &str = "application/grpc+proto";

/// The body of a request: its DATA frames, and what ends it.
struct Sent {
    frames: Vec<Vec<u8>>,
    end: End,
}

/// What says that a body has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The last of its frames.
    Itself,
    /// An empty frame behind them.
    Empty,
    Trailers,
}

/// What came back.
#[derive(Debug, PartialEq)]
struct Answered {
    head: HeaderMap,
    code: Code,
    message: String,
    verdict: Option<Verdict>,
}

struct Peer {
    requests: SendRequest<Bytes>,
    secret: String,
    url: String,
}

impl Peer {
    async fn connect(replica: &Replica) -> Self {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let url = format!("http://{}/tokend.v1.TokenService/Verify", replica.address);
        Self { requests, secret: replica.installation.root_secret.clone(), url }
    }

    async fn send(&self, content_type: &str, headers: &[(&str, &str)], sent: &Sent) -> Answered {
        let mut request = Request::post(&self.url)
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
        let mut head = head.headers;
        // The moment is in both.
        head.remove("date");
        let status = Status::from_header_map(&head).or_else(|| Status::from_header_map(&trailers?));
        let status = status.expect("a status");
        let verdict = data.get(5..).map(|message| VerifyResponse::decode(message).unwrap().verdict());
        Answered { head, code: status.code(), message: status.message().to_owned(), verdict }
    }
}

/// Writes a message with its prefix.
fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![compressed];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn whatever_the_framing_the_answer_is_the_routers() {
    let replica = Replica::start().await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    let peer = Peer::connect(&replica).await;
    let message = question(&secret, &[]).encode_to_vec();
    let whole = framed(0, &message);
    let (prefix, rest) = whole.split_at(3);
    let long = framed(0, &question(&"x".repeat(70_000), &[]).encode_to_vec());
    let valid = (Code::Ok, Some(Verdict::Valid));

    let shapes = [
        ("one frame", vec![whole.clone()], valid),
        ("a frame for each byte", whole.iter().map(|byte| vec![*byte]).collect(), valid),
        ("the prefix in two", vec![prefix.to_vec(), rest.to_vec()], valid),
        ("an empty frame first", vec![vec![], whole.clone()], valid),
        ("two messages", vec![[whole.clone(), whole.clone()].concat()], valid),
        ("nothing", vec![vec![]], (Code::Internal, None)),
        ("half a prefix", vec![prefix.to_vec()], (Code::Internal, None)),
        ("half a message", vec![whole[..20].to_vec()], (Code::Internal, None)),
        ("a message that is none", vec![framed(0, &[0xff; 9])], (Code::Internal, None)),
        ("compressed by nothing", vec![framed(1, &message)], (Code::Internal, None)),
        ("a flag that there is not", vec![framed(7, &message)], (Code::Internal, None)),
        ("an empty message", vec![framed(0, &[])], (Code::Ok, Some(Verdict::Malformed))),
        ("one too long", vec![long], (Code::OutOfRange, None)),
    ];
    for (shape, frames, expected) in shapes {
        for end in [End::Itself, End::Empty, End::Trailers] {
            let sent = Sent { frames: frames.clone(), end };
            let past = peer.send(PAST_THE_ROUTER, &[], &sent).await;
            assert_eq!((past.code, past.verdict), expected, "{shape}, {end:?}: {past:?}");
            assert_eq!(past, peer.send(BY_THE_ROUTER, &[], &sent).await, "{shape}, {end:?}");
        }
    }

    let sent = Sent { frames: vec![whole], end: End::Itself };
    let refused = peer.send(PAST_THE_ROUTER, &[("grpc-encoding", "gzip")], &sent).await;
    assert_eq!(refused.code, Code::Unimplemented, "{refused:?}");
    let named = peer.send(PAST_THE_ROUTER, &[("grpc-encoding", "identity")], &sent).await;
    assert_eq!((named.code, named.verdict), valid);
}

#[tokio::test]
async fn what_does_not_call_itself_grpc_is_not_read() {
    let replica = Replica::start().await;
    let peer = Peer::connect(&replica).await;
    let body = Bytes::from(framed(0, &question(&peer.secret, &[]).encode_to_vec()));
    for path in ["Verify", "CreateToken"] {
        for kind in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json")]
        {
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
