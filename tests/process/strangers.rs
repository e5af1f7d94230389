//! What unauthenticated clients can make the server hold: every method in its reflection is called
//! as often as a connection may, each time with the start of a message whose rest never comes. The
//! memory is the process's.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use h2::client::SendRequest;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use rustix::process::{Resource, Rlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::program::{PROGRAM, Place, Running};

/// The number of attacking connections, each from a separate address, and of the calls on each.
const CONNECTIONS: u8 = 24;
const CALLS: usize = 256;

/// The announced length of each message, in bytes.
const ANNOUNCED: u32 = 65_000;

/// The most memory, in bytes, for a connection's unfinished calls, including freed memory that the
/// allocator keeps: after much data has come and gone, that is as much again.
const MOST: usize = 1 << 20;
const MOST_OF_MUCH: usize = 2 << 20;

/// What each call sends before it stalls.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    /// The number of extra headers, and the length of each.
    headers: (usize, usize),
    /// The bytes of its message that are sent.
    sent: usize,
}

/// All calls stay open: none exceeds a limit.
const LITTLE: Beginning = Beginning { headers: (1, 300), sent: 6 };

/// The limit of each kind for a call.
const MUCH: [Beginning; 3] = [
    Beginning { headers: (1, 300), sent: 40_000 },
    Beginning { headers: (90, 1), sent: 6 },
    Beginning { headers: (1, 15_000), sent: 6 },
];

/// The longest life of an unfinished call, with a margin for a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Starts a server with every service enabled.
fn serve(place: &Place, http: &str) -> (Running, String) {
    let data = place.data_dir();
    let mut server = place.start(
        &[
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
        ],
        &[],
    );
    let address = server.ready();
    (server, address)
}

/// Sends a request to reflection.
async fn ask(address: &str, question: MessageRequest) -> Option<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let channel = Endpoint::from_shared(address.to_owned()).unwrap().connect_lazy();
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response
}

/// Returns the path of every method of every service.
async fn methods(address: &str) -> BTreeSet<String> {
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
async fn connect(address: &str, from: u8) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    let stream = socket.connect(address.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async { drop(connection.await) });
    (requests.ready().await.unwrap(), connection)
}

/// Returns the head of a call.
fn head(path: &str, kind: &str, headers: (usize, usize)) -> Request<()> {
    let mut request =
        Request::post(format!("http://tokend{path}")).header("content-type", kind).header("te", "trailers");
    for number in 0..headers.0 {
        request = request.header(format!("x-{number}"), "x".repeat(headers.1));
    }
    request.body(()).unwrap()
}

/// Starts a call and sends the start of its message, as flow control allows; ends with the call.
async fn begin(mut requests: SendRequest<Bytes>, head: Request<()>, sent: usize) {
    let Ok((answer, mut body)) = requests.send_request(head, false) else { return };
    let mut left = vec![0; sent];
    left[1..5].copy_from_slice(&ANNOUNCED.to_be_bytes());
    let mut left = Bytes::from(left);
    let sending = async {
        while !left.is_empty() {
            body.reserve_capacity(left.len());
            match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                Some(Ok(room)) => drop(body.send_data(left.split_to(room.min(left.len())), false)),
                _ => return,
            }
        }
        // Nothing more, ever.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => {}
        answer = answer => {
            // Until the end of the response.
            let Ok(answer) = answer else { return };
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.data().await {}
        }
    }
}

/// Returns the resident memory of a process, without its program, in bytes.
fn resident(server: &Running) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Returns the peak of the resident memory, once it has not grown for half a second.
async fn peak(server: &Running) -> usize {
    let (mut most, mut since) = (0, 0);
    while since < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = resident(server);
        since = if now > most { 0 } else { since + 1 };
        most = most.max(now);
    }
    most
}

/// Opens this many connections with as many unfinished calls of a method as allowed; returns the
/// peak of the resident memory meanwhile.
async fn attack(server: &Running, address: &str, path: &str, beginning: Beginning, connections: u8) -> usize {
    let mut open = Vec::new();
    let mut calls = JoinSet::new();
    for number in 1..=connections {
        let (requests, connection) = connect(address, number).await;
        open.push(connection);
        let kinds = ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"];
        for _ in 0..CALLS {
            // Some connections end when too much is refused.
            let Ok(requests) = requests.clone().ready().await else { break };
            let head = head(path, kinds[usize::from(number) % 3], beginning.headers);
            calls.spawn(begin(requests, head, beginning.sent));
        }
    }
    let most = peak(server).await;
    calls.abort_all();
    open.iter().for_each(tokio::task::JoinHandle::abort);
    most
}

#[test]
fn unfinished_calls_of_any_service_hold_little_and_not_for_long() {
    let place = Place::new();
    let (server, address) = serve(&place, "127.0.0.1:0");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let methods = methods(&address).await;
        assert!(methods.len() > 20, "{methods:?}");
        // First, so that memory which the program keeps after its first work is not counted.
        attack(&server, &address, methods.first().unwrap(), LITTLE, 1).await;
        let idle = {
            let mut open = Vec::new();
            for number in 1..=CONNECTIONS {
                open.push(connect(&address, number).await);
            }
            peak(&server).await
        };
        let much = MUCH.iter().flat_map(|much| {
            ["/tokend.v1.TokenService/CreateToken", "/tokend.v1.TokenService/VerifyStream"]
                .map(|path| (path, *much))
        });
        let attacks: Vec<_> = methods.iter().map(|path| (&**path, LITTLE)).chain(much).collect();
        let mut held = Vec::new();
        for (path, beginning) in attacks {
            let most = attack(&server, &address, path, beginning, CONNECTIONS).await;
            held.push((most.saturating_sub(idle) / usize::from(CONNECTIONS), path, beginning));
        }
        println!("{held:?}");
        let over: Vec<_> = held
            .iter()
            .filter(|(held, _, of)| *held > if of.sent > 6 { MOST_OF_MUCH } else { MOST })
            .collect();
        assert!(over.is_empty(), "bytes a connection: {over:?}");

        let (requests, _connection) = connect(&address, 1).await;
        let mut calls = JoinSet::new();
        for path in &methods {
            let requests = requests.clone().ready().await.unwrap();
            calls.spawn(begin(requests, head(path, "application/grpc", (0, 0)), 40_000));
        }
        let ended = tokio::time::timeout(LONGEST, async { while calls.join_next().await.is_some() {} }).await;
        assert!(ended.is_ok(), "{} calls are still open", calls.len());
    });
}

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
fn what_is_too_long_is_refused_by_every_method_before_it_comes() {
    let place = Place::new();
    let (_server, address) = serve(&place, "127.0.0.1:0");
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
fn a_connection_is_told_what_it_may_send() {
    let place = Place::new();
    let (_server, address) = serve(&place, "127.0.0.1:0");
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

/// The most memory, in bytes, for all unauthenticated clients together.
const ALL: usize = 64 << 20;

/// Opens an HTTP/2 connection to be written by hand.
async fn raw(address: &str, from: (u8, u8)) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, from.0, from.1], 0).into()).unwrap();
    socket.connect(address.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes a head of HTTP/2: each field a literal, with or without an entry in HPACK's table.
fn block(fields: &[(&str, &str, bool)]) -> Vec<u8> {
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

const CALL: [(&str, &str, bool); 5] = [
    (":method", "POST", false),
    (":scheme", "http", false),
    (":path", "/tokend.v1.TokenService/CreateToken", false),
    (":authority", "tokend", false),
    ("content-type", "application/grpc", false),
];

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
fn an_authority_that_is_no_host_is_refused_with_few_lines_that_say_what_to_set() {
    const PROTOCOL_ERROR: u32 = 1;
    let place = Place::new();
    let (mut server, address) = serve(&place, "127.0.0.1:0");
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

/// What an unauthenticated client writes before it stalls: as many unfinished calls as allowed; heads that
/// stay in memory because HPACK's table keeps their shortest fields; an unfinished head; data in many
/// frames for one call; half a request of HTTP/1.
fn writings() -> Vec<(&'static str, Vec<u8>)> {
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, b"")].concat();
    let message = [&[0][..], &ANNOUNCED.to_be_bytes(), b"x"].concat();
    let (mut calls, mut tables, mut data) = (begin.clone(), begin.clone(), begin.clone());
    for number in 0..256 {
        calls.extend(frame(1, 4, 2 * number + 1, &block(&CALL)));
        calls.extend(frame(0, 0, 2 * number + 1, &message));
    }
    let long = "x".repeat(15_000);
    for number in 0..100 {
        let name = format!("x-{number}");
        let fields = [&CALL[..], &[(&name, "y", true), ("x", &long, false)]].concat();
        tables.extend(frame(1, 5, 2 * number + 1, &block(&fields)));
    }
    let fields: Vec<_> = (0..450).map(|number| format!("x{number}")).collect();
    let fields: Vec<_> = fields.iter().map(|name| (&**name, "", false)).collect();
    let head = [begin, frame(1, 0, 1, &block(&fields))].concat();
    data.extend(frame(1, 4, 1, &block(&CALL)));
    data.extend((0..700).flat_map(|_| frame(0, 0, 1, b"x")));
    let half = format!("POST /oauth2/introspect HTTP/1.1\r\nx: {}", "x".repeat(15_000)).into_bytes();
    vec![("calls", calls), ("tables", tables), ("a head", head), ("data", data), ("half a request", half)]
}

#[test]
fn however_many_strangers_come_they_hold_less_than_64_mebibytes_together() {
    // Connections per listener for each kind of data.
    const EACH: u8 = 250;
    let soft = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: soft.maximum, ..soft }).unwrap();
    let place = Place::new();
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (server, grpc) = serve(&place, &http);
    Runtime::new().unwrap().block_on(async {
        attack(&server, &grpc, "/tokend.v1.TokenService/CreateToken", LITTLE, 1).await;
        let writings = writings();
        let listeners = [grpc.clone(), format!("http://{http}")];
        let mut open = Vec::new();
        for kind in 0..u8::try_from(writings.len()).unwrap() {
            for from in 1..=EACH {
                for listener in &listeners {
                    open.push((usize::from(kind), raw(listener, (kind, from)).await));
                }
            }
        }
        let idle = peak(&server).await;
        let mut writing = JoinSet::new();
        for (kind, mut stream) in open {
            let bytes = Bytes::copy_from_slice(&writings[kind].1);
            writing.spawn(async move {
                // Fails if the server closes it first.
                let _ = stream.write_all(&bytes).await;
                let mut answer = [0; 1024];
                while let Ok(1..) = stream.read(&mut answer).await {}
            });
        }
        let held = peak(&server).await.saturating_sub(idle);
        println!("{held} bytes by {} connections", writing.len());
        assert!(held < ALL, "{held} bytes");
        writing.abort_all();
        // Authenticated clients are served meanwhile and afterwards.
        assert!(!methods(&grpc).await.is_empty());
    });
}

#[test]
fn the_limit_of_open_files_is_raised_or_fewer_connections_are_taken() {
    let place = Place::new();
    let data = place.data_dir();
    let serve = |limit: &str| {
        let script = format!("ulimit {limit} 300; exec \"$0\" \"$@\"");
        let data = data.to_str().unwrap();
        let serve = ["-c", &*script, PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", data];
        place.start_of("/bin/sh", &serve, &[])
    };
    let mut raised = serve("-Sn");
    raised.ready();
    let limits = fs::read_to_string(format!("/proc/{}/limits", raised.pid())).unwrap();
    let soft = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = soft.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 2048, "{soft}");
    assert!(!raised.stderr().contains("open files"));
    raised.stop();

    let mut lowered = serve("-n");
    lowered.ready();
    assert!(lowered.stderr().contains("at most 156 connections are taken"), "{}", lowered.stderr());
}
