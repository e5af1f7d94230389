//! What the tests of unauthenticated clients share: a server with every service enabled, connections and frames written by
//! hand, and the memory of the process.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use rustix::process::{Resource, Rlimit};
use tokio::net::{TcpSocket, TcpStream};
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::program::{Running, TestDir};

/// The announced length of each message, in bytes.
pub(super) const ANNOUNCED: u32 = 65_000;

/// Until then all deadlines of unfinished requests, heads and handshakes have passed.
pub(super) const ALL_DEADLINES: Duration = Duration::from_secs(12);

/// The longest life of an unfinished call, with a margin for a busy machine.
pub(super) const LONGEST: Duration = Duration::from_secs(20);

/// Starts a server with every service enabled.
pub(super) fn serve(test_dir: &TestDir, http: &str) -> (Running, String) {
    serve_with(test_dir, http, &[], &[])
}

/// The same with more flags and variables.
pub(super) fn serve_with(
    test_dir: &TestDir,
    http: &str,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> (Running, String) {
    let data = test_dir.data_dir();
    let all = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        http,
        "--ext-authz",
        "--grpc-web-origins",
        "https://a.example",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let mut server = test_dir.start(&[&all[..], flags].concat(), variables);
    // With TLS it is not asked whether it serves.
    let address = if flags.is_empty() { server.ready() } else { server.address() };
    (server, address.replace("https://", "http://"))
}

/// Sends a request to reflection.
pub(super) async fn ask(address: &str, question: MessageRequest) -> Option<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let channel = Endpoint::from_shared(address.to_owned()).unwrap().connect_lazy();
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response
}

/// Returns the path of every method of every service.
pub(super) async fn methods(address: &str) -> BTreeSet<String> {
    let services = match ask(address, MessageRequest::ListServices(String::new())).await {
        Some(MessageResponse::ListServicesResponse(services)) => services.service,
        other => panic!("{other:?}"),
    };
    let mut paths = BTreeSet::new();
    for service in services {
        let file = match ask(address, MessageRequest::FileContainingSymbol(service.name.clone())).await {
            Some(MessageResponse::FileDescriptorResponse(file)) => file,
            other => panic!("{other:?}"),
        };
        for file in file.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&*file).unwrap();
            for defined in &file.service {
                let name = format!("{}.{}", file.package(), defined.name());
                paths.extend(defined.method.iter().map(|method| format!("/{name}/{}", method.name())));
            }
        }
    }
    paths.insert("/envoy.service.auth.v3.Authorization/Check".to_owned());
    paths
}

/// Opens a connection from 127.0.0.`from`.
pub(super) async fn connect(address: &str, from: u8) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    let stream = socket.connect(address.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async { drop(connection.await) });
    (requests.ready().await.unwrap(), connection)
}

/// Returns the head of a call.
pub(super) fn head(path: &str, kind: &str, headers: (usize, usize)) -> Request<()> {
    let mut request =
        Request::post(format!("http://tokend{path}")).header("content-type", kind).header("te", "trailers");
    for number in 0..headers.0 {
        request = request.header(format!("x-{number}"), "x".repeat(headers.1));
    }
    request.body(()).unwrap()
}

/// A server, and where it listens for gRPC and for HTTP.
pub(super) fn serve_both(
    test_dir: &TestDir,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> (Running, [String; 2]) {
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (server, grpc) = serve_with(test_dir, &http, flags, variables);
    (server, [grpc, format!("http://{http}")])
}

pub(super) fn raise_open_files() {
    let soft = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: soft.maximum, ..soft }).unwrap();
}

/// Returns the resident memory of a process, without its program, in bytes.
pub(super) fn resident(server: &Running) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Returns the peak of the resident memory, once it has not grown for half a second.
pub(super) async fn peak(server: &Running) -> usize {
    peak_after(server, Duration::ZERO).await
}

/// The same, and not before `least` has passed.
pub(super) async fn peak_after(server: &Running, least: Duration) -> usize {
    let (mut most, mut since, began) = (0, 0, Instant::now());
    while since < 10 || began.elapsed() < least {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = resident(server);
        since = if now > most { 0 } else { since + 1 };
        most = most.max(now);
    }
    most
}

/// Opens an HTTP/2 connection to be written by hand.
pub(super) async fn raw(address: &str, from: (u8, u8)) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, from.0, from.1], 0).into()).unwrap();
    socket.connect(address.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes a head of HTTP/2: each field a literal, with or without an entry in HPACK's table.
pub(super) fn block(fields: &[(&str, &str, bool)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value, kept) in fields {
        block.push(if *kept { 0x40 } else { 0 });
        for text in [name, value] {
            // RFC 7541, 5.1: a prefix of 7 bits.
            let mut rest = text.len();
            if rest < 127 {
                block.push(u8::try_from(rest).unwrap());
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128 + 128).unwrap());
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub(super) const CALL: [(&str, &str, bool); 5] = [
    (":method", "POST", false),
    (":scheme", "http", false),
    (":path", "/tokend.v1.TokenService/CreateToken", false),
    (":authority", "tokend", false),
    ("content-type", "application/grpc", false),
];
