//! What strangers can have held: every method that the program names by its reflection is called as often as a
//! connection may, each time with the beginning of a message whose rest never comes. The memory is the process's own.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use h2::client::SendRequest;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::program::{PROGRAM, Place, Running};

/// Connections that attack at once, and the calls on each.
const CONNECTIONS: usize = 8;
const CALLS: usize = 256;

/// What is announced of each message, and what is sent of it.
const ANNOUNCED: u32 = 65_000;
const SENT: usize = 40_000;

/// The most that a connection's unfinished calls may take, with what the allocator keeps of what it gave back.
const MOST: usize = 6 << 20;

/// How long an unfinished call may live, with what a busy machine adds.
const LONGEST: Duration = Duration::from_secs(20);

/// A server with every service there is.
fn serve(place: &Place) -> (Running, String) {
    let data = place.data_dir();
    let mut server = place.start(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
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

/// Asks reflection one question.
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

/// Opens a connection.
async fn connect(address: &str) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async { drop(connection.await) });
    (requests.ready().await.unwrap(), connection)
}

/// Begins a call and sends the beginning of its message, as the server lets it; ends with the call.
async fn begin(mut requests: SendRequest<Bytes>, path: String, kind: &'static str) {
    let request = Request::post(format!("http://tokend{path}"))
        .header("content-type", kind)
        .header("te", "trailers")
        .header("x-padding", "x".repeat(300));
    let Ok((answer, mut body)) = requests.send_request(request.body(()).unwrap(), false) else { return };
    let mut left = vec![0; SENT];
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
            // Until the end of what is answered.
            let Ok(answer) = answer else { return };
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.data().await {}
        }
    }
}

/// Returns the memory of a process that is resident, its program aside, in bytes.
fn resident(server: &Running) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Returns the most that is resident within a second.
async fn peak(server: &Running) -> usize {
    let mut most = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(resident(server));
    }
    most
}

/// Opens so many connections with as many unfinished calls of a method as they may have; returns the most that is
/// resident meanwhile.
async fn attack(server: &Running, address: &str, path: &str, connections: usize) -> usize {
    let mut open = Vec::new();
    let mut calls = JoinSet::new();
    for number in 0..connections {
        let (requests, connection) = connect(address).await;
        open.push(connection);
        let kind = ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"][number % 3];
        for _ in 0..CALLS {
            // Some end their connection when too much is refused.
            let Ok(requests) = requests.clone().ready().await else { break };
            calls.spawn(begin(requests, path.to_owned(), kind));
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
    let (server, address) = serve(&place);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let methods = methods(&address).await;
        assert!(methods.len() > 20, "{methods:?}");
        // What the program keeps for itself once it has worked is there before it is measured.
        attack(&server, &address, methods.first().unwrap(), 1).await;
        let idle = {
            let mut open = Vec::new();
            for _ in 0..CONNECTIONS {
                open.push(connect(&address).await);
            }
            peak(&server).await
        };
        let mut held = Vec::new();
        for path in &methods {
            let most = attack(&server, &address, path, CONNECTIONS).await;
            held.push((most.saturating_sub(idle) / CONNECTIONS, path));
        }
        println!("{held:?}");
        let over: Vec<_> = held.iter().filter(|(held, _)| *held > MOST).collect();
        assert!(over.is_empty(), "bytes a connection: {over:?}");

        let (requests, _connection) = connect(&address).await;
        let mut calls = JoinSet::new();
        for path in &methods {
            let requests = requests.clone().ready().await.unwrap();
            calls.spawn(begin(requests, path.clone(), "application/grpc"));
        }
        let ended = tokio::time::timeout(LONGEST, async { while calls.join_next().await.is_some() {} }).await;
        assert!(ended.is_ok(), "{} calls are still open", calls.len());
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
