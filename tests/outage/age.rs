//! Connections that reach their maximum age: their clients open new ones, so that an added replica
//! gets its share, and no call fails because of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection as _;
use tokend::api::proto::{Verdict, VerifyStreamRequest, WatchTokensRequest};
use tokend_client::{Connection, Verifier, VerifyRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::client::{created, ordinary, question, renaming};
use crate::support::program::find_tool;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::status::check;
use crate::support::{eventually, http, in_time};

/// A maximum age that passes many times in a test.
const SHORT: Duration = Duration::from_millis(150);

/// Verifies for ever with a generic gRPC client, without the contract: `PORT AUTHORIZATION SECRET`.
const ASKING: &str = r#"
import sys, grpc
address, secret, asked = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    verify = channel.unary_unary("/tokend.v1.TokenService/Verify")
    message = b"\n" + bytes([len(asked)]) + asked.encode()
    while True:
        verify(message, metadata=[("authorization", "Bearer " + secret)], timeout=10)
"#;

async fn aging(installation: &Installation, age: Duration, grace: Duration) -> Replica {
    let mut config = installation.config();
    config.limits.timeouts.age = Some(age);
    config.limits.timeouts.age_grace = grace;
    installation.serve(config).await
}

/// Returns the number of Verify calls that a replica has answered.
async fn verifies(replica: &Replica) -> u64 {
    let (_, metrics) = http::get(replica.http, "/metrics").await;
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.starts_with("tokend_calls_total{code=\"OK\",rpc=\"Verify\"}"));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_replica_gets_calls_of_connected_clients_and_none_fails() {
    let installation = Installation::new().await;
    let first = aging(&installation, SHORT, Duration::from_mins(1)).await;
    let made = created(&mut first.root(), ordinary()).await;
    let proxy = Proxy::to_port(first.address, LinkState::Open).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut asking = JoinSet::new();
    let connection =
        Connection::to(format!("http://{}", proxy.address())).secret((&*installation.root_secret).into());
    let open = || connection.open().unwrap();
    for verifier in [Verifier::unary(open()), Verifier::multiplexed(open()).unwrap()] {
        let (secret, done) = (made.secret.clone(), Arc::clone(&done));
        asking.spawn(async move {
            let question = VerifyRequest::new(&secret);
            while !done.load(Ordering::Relaxed) {
                let answer = verifier.verify(&question).await.unwrap();
                assert_eq!(answer.verdict, tokend_client::Verdict::Valid);
            }
        });
    }
    eventually("the first is asked", async || (verifies(&first).await > 100).then_some(())).await;

    let second = aging(&installation, SHORT, Duration::from_mins(1)).await;
    proxy.round_robin(&[second.address, first.address]);

    eventually("the second is asked", async || (verifies(&second).await > 100).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    in_time("the clients", asking.join_all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_replica_gets_calls_of_grpcs_own_client() {
    let Some(python) = find_tool("python") else { return };
    let installation = Installation::new().await;
    let first = aging(&installation, SHORT, Duration::from_mins(1)).await;
    let made = created(&mut first.root(), ordinary()).await;
    let proxy = Proxy::to_port(first.address, LinkState::Open).await;
    let mut asking = asking(&python, proxy.address(), &installation.root_secret, &made.secret);
    eventually("the first is asked", async || (verifies(&first).await > 100).then_some(())).await;

    let second = aging(&installation, SHORT, Duration::from_mins(1)).await;
    proxy.round_robin(&[second.address, first.address]);

    eventually("the second is asked", async || (verifies(&second).await > 100).then_some(())).await;
    let before = verifies(&first).await;
    eventually("the first again", async || (verifies(&first).await > before + 100).then_some(())).await;
    // It exits when a call fails.
    assert!(asking.try_wait().unwrap().is_none(), "{:?}", asking.wait_with_output().await);
}

fn asking(python: &Path, address: SocketAddr, caller: &str, secret: &str) -> tokio::process::Child {
    let arguments = ["-c", ASKING, &address.to_string(), caller, secret];
    let mut command = Command::new(python);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn streams_continue_in_the_grace_and_end_in_a_resumable_way() {
    let installation = Installation::new().await;
    let replica = aging(&installation, SHORT, 20 * SHORT).await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let id = made.token.unwrap().id;
    let (questions, asked) = mpsc::channel(1);
    let ask = VerifyStreamRequest { request: Some(question(&made.secret, &[])) };
    questions.send(ask.clone()).await.unwrap();
    let mut answers = root.verify_stream(ReceiverStream::new(asked)).await.unwrap().into_inner();
    let mut watch = root.watch_tokens(WatchTokensRequest::default()).await.unwrap().into_inner();
    let position = in_time("a position", watch.message()).await.unwrap().unwrap().position;

    tokio::time::sleep(2 * SHORT).await;
    questions.send(ask.clone()).await.unwrap();
    for _ in 0..2 {
        let answer = in_time("an answer", answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.response.unwrap().verdict(), Verdict::Valid);
    }
    let ended = in_time("the stream's end", answers.message()).await.unwrap_err();
    check(&ended, Code::Unavailable, "SHUTTING_DOWN");
    let ended = in_time("the watch's end", async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    check(&ended.await, Code::Unavailable, "SHUTTING_DOWN");

    // Over a new connection or the same one, as the client chooses.
    root.update_token(renaming(&id)).await.unwrap();
    let after = WatchTokensRequest { after: position, ..Default::default() };
    let mut resumed = root.watch_tokens(after).await.unwrap().into_inner();
    let missed = in_time("what was missed", resumed.message()).await.unwrap().unwrap();
    assert!(missed.changes.iter().any(|change| change.token_id == id), "{missed:?}");
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_cut_off_and_a_shorter_one_is_answered() {
    let installation = Installation::new().await;
    for (grace, is_answered) in [(Duration::from_mins(1), true), (SHORT, false)] {
        let replica = aging(&installation, SHORT, grace).await;
        let mut lock = installation.database.connect().await;
        for statement in ["BEGIN", "LOCK TABLE token_events IN ACCESS EXCLUSIVE MODE"] {
            sqlx::raw_sql(statement).execute(&mut lock).await.unwrap();
        }
        let mut root = replica.root();
        let creation = tokio::spawn(async move { root.create_token(ordinary()).await });
        if is_answered {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            let database = &installation.database;
            eventually("it waits", async || (database.count(waiting).await > 0).then_some(())).await;
            tokio::time::sleep(3 * SHORT).await;
            assert!(!creation.is_finished());
            lock.close().await.unwrap();
        }
        let outcome = in_time("the creation", creation).await.unwrap();
        assert_eq!(outcome.is_ok(), is_answered, "{outcome:?}");
        if let Err(cut_off) = outcome {
            // Not by an answer: that one comes, too, when the database's time is over.
            assert!(cut_off.get_error_details().error_info().is_none(), "{cut_off:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_of_http_1_ends_with_a_response_and_never_between_requests() {
    let installation = Installation::new().await;
    let replica = aging(&installation, 4 * SHORT, SHORT).await;
    let mut stream = TcpStream::connect(replica.http).await.unwrap();
    let mut asked = async || {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: tokend\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let length = in_time("an answer", stream.read(&mut answer)).await.unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    };

    let young = asked().await;
    tokio::time::sleep(8 * SHORT).await;
    let old = asked().await;

    assert!(young.starts_with("HTTP/1.1 200") && !young.contains("connection: close"), "{young}");
    assert!(old.starts_with("HTTP/1.1 200") && old.contains("connection: close"), "{old}");
    assert_eq!(in_time("the end", stream.read(&mut [0; 16])).await.unwrap(), 0);
}
