//! All attacks together against one process, for a given time: floods by callers of every kind and
//! unauthenticated clients with unfinished calls, while an administrator revokes and a backend
//! verifies. Neither is ever refused; their latencies and the resources of the process are printed
//! for a person.
//!
//! `TOKEND_LONG_SECONDS=600 cargo test --release --test engine attacks -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use tokend::api::proto::Verdict;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::fleet::{Process, report, url};
use crate::support::assorted_tokens::tokens_of_all_sorts;
use crate::support::client::{Client, ordinary, question, revocation};
use crate::support::flood::{Calls, Flood, Server, kinds};
use crate::support::replica::Installation;

/// The number of addresses of unauthenticated clients, and of the unfinished calls of each.
const STRANGERS: u8 = 40;
const CALLS: usize = 256;

/// How long the test runs.
fn length() -> Duration {
    let seconds = env::var("TOKEND_LONG_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(600))
}

/// The durations of one kind of call.
#[derive(Debug, Default)]
struct Took(Vec<Duration>);

impl Took {
    fn shown(mut self) -> String {
        self.0.sort_unstable();
        let at = |share: usize| self.0.get(self.0.len() * share / 1000).copied().unwrap_or_default();
        let longest = self.0.last().copied().unwrap_or_default();
        format!("{} times, p50 {:.1?}, p99 {:.1?}, the longest {longest:.1?}", self.0.len(), at(500), at(990))
    }
}

/// Opens calls and leaves them unfinished, on one connection after another.
async fn strangers(server: Arc<Server>, from: u8) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, from], 0).into()).unwrap();
        let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
        let Ok(stream) = socket.connect(address).await else { return };
        let Ok((requests, connection)) = h2::client::handshake(stream).await else { continue };
        let mut calls = Vec::new();
        let begin = async {
            for _ in 0..CALLS {
                let Ok(mut requests) = requests.clone().ready().await else { return };
                let call = Request::post("http://tokend/tokend.v1.TokenService/CreateToken")
                    .header("content-type", "application/grpc");
                let Ok((answer, mut body)) = requests.send_request(call.body(()).unwrap(), false) else {
                    return;
                };
                let _ = body.send_data(Bytes::from_static(&[0, 0, 0, 200, 0, 1]), false);
                calls.push((answer, body));
            }
            // As long as the server allows.
            tokio::time::sleep(Duration::from_secs(12)).await;
        };
        tokio::select! {
            _ = connection => {}
            () = begin => {}
        }
    }
}

/// Verifies and revokes for the given time; returns the durations of each.
async fn honest(server: &Server, length: Duration) -> (Took, Took) {
    let (mut admin, mut backend) = (server.root(), server.root());
    let secret = loop {
        // Creation may be refused, as in the floods.
        if let Ok(created) = admin.create_token(ordinary()).await {
            break created.into_inner().secret;
        }
    };
    let until = Instant::now() + length;
    let verifying = async {
        let mut took = Took::default();
        while Instant::now() < until {
            let began = Instant::now();
            let answer = backend.verify(question(&secret, &[])).await;
            took.0.push(began.elapsed());
            assert_eq!(answer.unwrap().into_inner().verdict(), Verdict::Valid);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took
    };
    let revoking = async {
        let mut took = Took::default();
        while Instant::now() < until {
            let id = victim(&mut admin).await;
            let began = Instant::now();
            let done = admin.revoke_token(revocation(&id, "leaked")).await;
            took.0.push(began.elapsed());
            assert!(done.is_ok(), "{done:?}");
        }
        took
    };
    tokio::join!(verifying, revoking)
}

/// Creates a token to be revoked: this may need several tries, because it is a change like those of
/// the floods.
async fn victim(admin: &mut Client) -> String {
    loop {
        if let Ok(created) = admin.create_token(ordinary()).await {
            return created.into_inner().token.unwrap().id;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes, unless TOKEND_LONG_SECONDS says otherwise"]
async fn all_attacks_together_stop_neither_verdicts_nor_revocations() {
    let installation = Installation::new().await;
    tokens_of_all_sorts(&installation.database).await;
    let process = Process::start(&installation, &url(&installation.database), &[]).await;
    let root_secret = process.root_secret().to_owned();
    let server = Arc::new(Server { url: process.url().to_owned(), root_secret });
    let calls: Calls = kinds(&server).await.into_iter().flat_map(|(_, calls)| calls).collect();
    let length = length();

    let (verified, revoked) = honest(&server, length.min(Duration::from_secs(10))).await;
    report(&format!("in a quiet time: Verify {}; RevokeToken {}", verified.shown(), revoked.shown()));
    report(&format!("before: {} MiB, {} files", process.resident_bytes() >> 20, files(&process)));

    let flood = Flood::begin(&server, &calls).await;
    let mut attacking = JoinSet::new();
    for from in 1..=STRANGERS {
        attacking.spawn(strangers(Arc::clone(&server), from));
    }
    let most = async {
        let (mut bytes, mut open) = (0, 0);
        let until = Instant::now() + length;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bytes = bytes.max(process.resident_bytes());
            open = open.max(files(&process));
        }
        (bytes, open)
    };
    let ((verified, revoked), (bytes, open)) = tokio::join!(honest(&server, length), most);
    attacking.abort_all();
    report(&format!(
        "under all attacks, {length:?}: Verify {}; RevokeToken {}",
        verified.shown(),
        revoked.shown()
    ));
    report(&format!("at most: {} MiB, {open} files; {} other answers", bytes >> 20, flood.end().await));
    report(&format!("afterwards: {} MiB, {} files", process.resident_bytes() >> 20, files(&process)));
}

/// Returns the number of open files of a process.
fn files(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}
