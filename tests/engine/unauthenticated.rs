//! Unauthenticated clients at the port of the built program: nghttp2's h2load with more streams
//! than allowed, headers that never end, peers that fall silent or do not read. Authenticated
//! clients are still served, and memory stays bounded.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use h2::RecvStream;
use h2::client::SendRequest;
use tokend::api::proto::{CreateTokenRequest, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};

use super::fleet::{Process, report, url};
use super::setup::{Made, assert_unavailable, made};
use crate::support::client::{ordinary, question};
use crate::support::program::{TestDir, find};
use crate::support::replica::Installation;
use crate::support::{eventually, in_time};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The most memory, in bytes, that all of this together may take permanently.
const MAX_MEMORY: u64 = 64 << 20;

/// The most memory, in bytes, for unread responses: `--response-memory-bytes`, and what it takes to
/// produce some.
const ROOM_FOR_ANSWERS: u64 = 96 << 20;

/// The program, and a token that it must keep serving.
struct Scene {
    process: Process,
    known: Made,
}

impl Scene {
    async fn set() -> Self {
        let installation = Installation::new().await;
        let process = Process::start(&installation, &url(&installation.database), &[]).await;
        let known = made(&mut process.root()).await;
        Self { process, known }
    }

    /// Waits until the token is served. A machine that is busy with the attack may be too late to
    /// know anything.
    async fn serves(&self) {
        let mut root = self.process.root();
        eventually("an answer", async || match root.verify(question(&self.known.secret, &[])).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
                Some(())
            }
            Err(status) => {
                assert_unavailable(&status);
                None
            }
        })
        .await;
    }

    /// Opens an HTTP/2 connection and sends nothing more.
    async fn connect(&self) -> TcpStream {
        let address = self.process.url().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        stream
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Writes until the peer refuses; returns the number of bytes. A server that disconnects may reset.
async fn pour(stream: &mut TcpStream, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let mut poured = 0;
    for frame in frames {
        match stream.write_all(&frame).await {
            Ok(()) => poured += frame.len(),
            Err(error) => {
                let cut = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
                assert!(cut.contains(&error.kind()), "{error}");
                return poured;
            }
        }
    }
    panic!("all {poured} bytes were taken")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_are_cut_off_early() {
    let scene = Scene::set().await;
    let before = scene.process.resident_bytes();

    for _ in 0..20 {
        // A header whose value never ends, in frames without END_HEADERS.
        let mut stream = scene.connect().await;
        stream.write_all(&frame(1, 0, 1, &[0x83, 0x86])).await.unwrap();
        let more = || frame(9, 0, 1, &[0x40, 0x01, b'x', 0x7f, 0xff, 0xff, 0x7f].repeat(2_000));
        let poured = pour(&mut stream, std::iter::repeat_with(more).take(4_000)).await;
        assert!(poured < 16 << 20, "{poured} bytes of one header were taken");
    }

    scene.serves().await;
    let grown = scene.process.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_MEMORY, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_use_little_memory_and_are_disconnected() {
    let scene = Scene::set().await;
    let before = scene.process.resident_bytes();
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(scene.connect().await);
    }

    scene.serves().await;
    let grown = scene.process.resident_bytes().saturating_sub(before);
    report(&format!("{} silent connections take {} KiB each", silent.len(), grown / 1_024 / 1_000));
    assert!(grown < MAX_MEMORY, "{grown} bytes more");
    // They do not respond to the server's PING after a while, and are disconnected, which ends the read.
    let limit = std::time::Duration::from_secs(90);
    let last = silent.last_mut().unwrap();
    let mut printed = Vec::new();
    let ended = tokio::time::timeout(limit, last.read_to_end(&mut printed)).await.unwrap();
    assert!(ended.is_ok_and(|printed| printed > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_excessive_load_generator_displaces_nobody() {
    let Some(h2load) = find("h2load") else { return };
    let scene = Scene::set().await;
    let test_dir = TestDir::new();
    // An empty message in a gRPC frame.
    let body = test_dir.write("body", "\0\0\0\0\0");
    let url = format!("{}/tokend.v1.TokenService/Verify", scene.process.url());
    let before = scene.process.resident_bytes();
    let mut loading = Command::new(h2load)
        .args(["-n", "5000", "-c", "10", "-m", "500", "-d", &body])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", &format!("authorization: Bearer {}", "x".repeat(4_000))])
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let mut asked = 0;
    while loading.try_wait().unwrap().is_none() {
        scene.serves().await;
        asked += 1;
    }

    let output = String::from_utf8(loading.wait_with_output().unwrap().stdout).unwrap();
    assert!(asked > 0);
    // Each got a response, a refusal: in gRPC that has HTTP status 200, too.
    assert!(output.contains("5000 succeeded, 0 failed"), "{output}");
    let grown = scene.process.resident_bytes().saturating_sub(before);
    report(&format!("5,000 refusals beside {asked} answers; resident memory {} MiB more", grown >> 20));
    assert!(grown < MAX_MEMORY, "{grown} bytes more");
}

/// Creates tokens that fill a page of a list.
async fn a_full_page(process: &Process) {
    let mut root = process.root();
    for _ in 0..300 {
        let labels = (0..32).map(|number| (format!("label-{number}"), "x".repeat(200))).collect();
        root.create_token(CreateTokenRequest { labels, ..ordinary() }).await.unwrap();
    }
}

/// Requests a full page and reads nothing of it; returns the head of the response.
fn ask_and_read_nothing(
    scene: &Scene,
    requests: &SendRequest<Bytes>,
) -> impl Future<Output = Response<RecvStream>> + use<> {
    let requests = requests.clone();
    let request = Request::post(format!("{}/tokend.v1.TokenService/ListTokens", scene.process.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", scene.process.root_secret()))
        .body(())
        .unwrap();
    async move {
        let (answer, mut body) = requests.ready().await.unwrap().send_request(request, false).unwrap();
        // ListTokensRequest with page_size 1000.
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 3, 0x50, 0xe8, 0x07]), true).unwrap();
        in_time("the head of an answer", answer).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_use_no_more_memory_than_their_size() {
    let scene = Scene::set().await;
    a_full_page(&scene.process).await;
    let before = scene.process.resident_bytes();
    let (mut answers, mut refused) = (Vec::new(), 0);
    let mut count = |answer: Response<RecvStream>| match answer.headers().get("grpc-status") {
        None => answers.push(answer),
        Some(code) => {
            // RESOURCE_EXHAUSTED, with advice.
            assert_eq!(code, "8", "{:?}", answer.headers());
            let message = answer.headers()["grpc-message"].to_str().unwrap();
            assert!(message.contains("read"), "{message}");
            refused += 1;
        }
    };
    for _ in 0..2 {
        let address = scene.process.url().strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) =
            h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..50 {
            // Few at once: more would be refused because of their number.
            let mut heads: JoinSet<_> = (0..4).map(|_| ask_and_read_nothing(&scene, &requests)).collect();
            while let Some(answer) = heads.join_next().await {
                count(answer.unwrap());
            }
        }
    }
    scene.serves().await;
    let grown = scene.process.resident_bytes().saturating_sub(before);
    report(&format!(
        "{} answers that nobody reads, beside {refused} refusals, take {} KiB",
        answers.len(),
        grown >> 10
    ));
    assert!(answers.len() >= 8 && answers.len() + refused == 400, "{} answers", answers.len());
    assert!(grown < ROOM_FOR_ANSWERS, "{grown} bytes");
}
