//! The memory that unauthenticated clients can make the server hold: every method in its reflection is called as often as a
//! connection may, each time with the start of a message whose rest never comes; and heads and handshakes that do not end.
//! The memory is the process's.

use std::fs;

use h2::client::SendRequest;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::program::{PROGRAM, Running, TestDir};
use super::unauthenticated::{
    ALL_DEADLINES, ANNOUNCED, CALL, LONGEST, block, connect, frame, head, methods, peak, peak_after,
    raise_open_files, raw, serve, serve_both,
};

/// The number of attacking connections, each from a separate address, and of the calls on each.
const CONNECTIONS: u8 = 24;
const CALLS: usize = 256;

/// The most memory, in bytes, for a connection's unfinished calls, including freed memory that the
/// allocator keeps.
const MAX_BYTES: usize = 1 << 20;

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

/// Returns what a connection's calls of a method hold beyond an idle connection, at most, in bytes.
async fn held_by_calls(server: &Running, address: &str, path: &str, beginning: Beginning) -> usize {
    // First, so that memory which the program keeps after its first work is not counted.
    attack(server, address, path, LITTLE, 1).await;
    let idle = idle(server, address).await;
    attack(server, address, path, beginning, CONNECTIONS).await.saturating_sub(idle)
        / usize::from(CONNECTIONS)
}

/// Returns the memory of the process with idle connections.
async fn idle(server: &Running, address: &str) -> usize {
    let mut open = Vec::new();
    for number in 1..=CONNECTIONS {
        open.push(connect(address, number).await);
    }
    peak(server).await
}

#[test]
fn unfinished_calls_of_any_service_use_little_memory_and_end_soon() {
    let test_dir = TestDir::new();
    let (server, address) = serve(&test_dir, "127.0.0.1:0");
    Runtime::new().unwrap().block_on(async {
        let methods = methods(&address).await;
        assert!(methods.len() > 20, "{methods:?}");
        attack(&server, &address, methods.first().unwrap(), LITTLE, 1).await;
        let idle = idle(&server, &address).await;
        let mut held = Vec::new();
        for path in &methods {
            let most = attack(&server, &address, path, LITTLE, CONNECTIONS).await;
            held.push((most.saturating_sub(idle) / usize::from(CONNECTIONS), path));
        }
        println!("{held:?}");
        held.retain(|(held, _)| *held >= MAX_BYTES);
        assert!(held.is_empty(), "bytes a connection: {held:?}");

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

#[test]
fn long_unfinished_calls_use_little_memory_too() {
    let test_dir = TestDir::new();
    let mut held = Vec::new();
    for much in MUCH {
        for path in ["/tokend.v1.TokenService/CreateToken", "/tokend.v1.TokenService/VerifyStream"] {
            // A new process, so that what the allocator keeps after one attack is not counted for the next.
            let (mut server, address) = serve(&test_dir, "127.0.0.1:0");
            let runtime = Runtime::new().unwrap();
            held.push((runtime.block_on(held_by_calls(&server, &address, path, much)), path, much));
            drop(runtime);
            server.stop();
        }
    }
    println!("{held:?}");
    held.retain(|(held, ..)| *held >= MAX_BYTES);
    assert!(held.is_empty(), "bytes a connection: {held:?}");
}

/// The most memory, in bytes, for all unauthenticated clients together.
const ALL: usize = 64 << 20;

/// What a stranger writes and leaves: as many unfinished calls as it may have; heads that HPACK's table holds by
/// their shortest fields; a head that has not come to its end; data of many frames for one call; half a request of
/// HTTP/1, and one whose head is longer than is read.
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
    let long = format!("POST /oauth2/introspect HTTP/1.1\r\nx: {}", "x".repeat(900_000)).into_bytes();
    vec![
        ("calls", calls),
        ("tables", tables),
        ("a head", head),
        ("data", data),
        ("half a request", half),
        ("a long head", long),
    ]
}

/// Has unauthenticated clients take as much as they can of a server with so many worker threads; returns what it is.
fn held_by_all(workers: &str) -> usize {
    // Connections per listener for each kind of data.
    const EACH: u8 = 250;
    raise_open_files();
    let test_dir = TestDir::new();
    let (server, listeners) = serve_both(&test_dir, &[], &[("TOKIO_WORKER_THREADS", workers)]);
    let grpc = listeners[0].clone();
    Runtime::new().unwrap().block_on(async {
        attack(&server, &grpc, "/tokend.v1.TokenService/CreateToken", LITTLE, 1).await;
        let writings = writings();
        let before = peak(&server).await;
        let mut open = Vec::new();
        for kind in 0..u8::try_from(writings.len()).unwrap() {
            for from in 1..=EACH {
                for listener in &listeners {
                    open.push((usize::from(kind), raw(listener, (kind, from)).await));
                }
            }
        }
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
        let held = peak_after(&server, ALL_DEADLINES).await.saturating_sub(before);
        println!("{held} bytes by {} connections, {workers} workers", writing.len());
        writing.abort_all();
        // Authenticated clients are served meanwhile and afterwards.
        assert!(!methods(&grpc).await.is_empty());
        held
    })
}

#[test]
fn any_number_of_unauthenticated_clients_uses_less_than_64_mebibytes_together() {
    // On a machine with two cores, and on a large one.
    for workers in ["2", "8"] {
        let held = held_by_all(workers);
        assert!(held < ALL, "{held} bytes with {workers} workers");
    }
}

/// Opens connections to both listeners, has each write these pieces, the second when all have written the first, and
/// returns how much memory the server has used for them.
async fn held_by(server: &Running, listeners: &[String; 2], each: u8, pieces: [&[u8]; 2]) -> usize {
    let [first, rest] = pieces.map(Bytes::copy_from_slice);
    let before = peak(server).await;
    let mut open = Vec::new();
    for of in 1..=6 {
        for from in 1..=each {
            for listener in listeners {
                let mut stream = raw(listener, (of, from)).await;
                // Fails if the server closes it first.
                let _ = stream.write_all(&first).await;
                open.push(stream);
            }
        }
    }
    let mut writing = JoinSet::new();
    for mut stream in open {
        let rest = rest.clone();
        writing.spawn(async move {
            // Unless it is ended before.
            let _ = stream.write_all(&rest).await;
            while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
        });
    }
    let held = peak_after(server, ALL_DEADLINES).await.saturating_sub(before);
    println!("{held} bytes by {} connections", writing.len());
    held
}

#[test]
fn unfinished_tls_handshakes_use_less_than_64_mebibytes_together() {
    raise_open_files();
    let test_dir = TestDir::new();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificate = test_dir.file("server.pem", &certificate.pem(), 0o644);
    let key = test_dir.file("server.key", &key.serialize_pem(), 0o600);
    let (server, listeners) =
        serve_both(&test_dir, &["--tls-certificate", &certificate, "--tls-key", &key], &[]);
    // A hello of 65,000 bytes, of which the last never come (RFC 8446, 4 and 5.1).
    let hello = [&[1, 0, 0xfd, 0xe8][..], &vec![3; 64_900]].concat();
    let records: Vec<u8> = hello
        .chunks(16_384)
        .flat_map(|part| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat())
        .collect();
    let (first, rest) = records.split_at(1);
    Runtime::new().unwrap().block_on(async {
        let held = held_by(&server, &listeners, 250, [first, rest]).await;
        assert!(held < ALL, "{held} bytes");
    });
}

#[test]
fn the_limit_on_open_files_is_raised_or_fewer_connections_are_accepted() {
    let test_dir = TestDir::new();
    let data = test_dir.data_dir();
    let serve = |limit: &str| {
        let script = format!("ulimit {limit} 300; exec \"$0\" \"$@\"");
        let data = data.to_str().unwrap();
        let serve = ["-c", &*script, PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", data];
        test_dir.start_of("/bin/sh", &serve, &[])
    };
    let mut raised = serve("-Sn");
    raised.ready();
    let limits = fs::read_to_string(format!("/proc/{}/limits", raised.pid())).unwrap();
    let soft = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = soft.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 2048, "{soft}");
    assert!(!raised.stderr().contains("open files"));
    raised.stop();

    // Of two listeners: the console has one, too.
    let mut lowered = serve("-n");
    lowered.ready();
    assert!(lowered.stderr().contains("at most 78 connections"), "{}", lowered.stderr());
}
