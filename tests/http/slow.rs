//! Peers of the HTTP listener that stall: each is closed after a timeout; and while they hold all
//! connections, probes are answered.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::get;
use crate::support::program::find;
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

async fn replica(connections: usize, head: Duration) -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.limits.connections = connections;
    config.limits.timeouts.head = head;
    config.limits.timeouts.message = Duration::from_secs(1);
    installation.serve(config).await
}

/// Sends these bytes and nothing more.
async fn say(replica: &Replica, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(replica.http).await.unwrap();
    // The server may have closed the connection before it has read everything.
    let _ = stream.write_all(said.as_bytes()).await;
    stream
}

/// Reads the whole response.
async fn read(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = in_time("the end of the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn incomplete_requests_block_no_probe_and_are_cut_off() {
    let replica = replica(64, Duration::from_secs(5)).await;
    let mut halves = Vec::new();
    for _ in 0..256 {
        halves.push(say(&replica, "GET /livez HTTP/1.1\r\nhost: a").await);
    }

    for path in ["/livez", "/readyz"] {
        for _ in 0..20 {
            assert_eq!(in_time("a probe", get(replica.http, path)).await.0, 200, "{path}");
        }
    }

    for half in halves {
        read(half).await;
    }
    eventually("all is served again", async || (get(replica.http, "/metrics").await.0 == 200).then_some(()))
        .await;
}

/// Returns the bytes that are counted of requests and of connections of unauthenticated peers.
async fn counted(replica: &Replica) -> f64 {
    let (_, text) = get(replica.http, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix("tokend_request_bytes "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_incomplete_head_counts_until_its_connection_ends() {
    let replica = replica(64, Duration::from_mins(1)).await;
    let head = format!("POST /oauth2/introspect HTTP/1.1\r\nx: {}", "x".repeat(15_000));
    let mut halves = Vec::new();
    for _ in 0..20 {
        halves.push(say(&replica, &head).await);
    }

    let least = 20.0 * 32_500.0;
    eventually("all are counted", async || (counted(&replica).await > least).then_some(())).await;
    drop(halves);
    // The connection that asks counts, too.
    eventually("all is given back", async || (counted(&replica).await < 21_000.0).then_some(())).await;
}

#[tokio::test]
async fn an_incomplete_request_is_answered_and_closed() {
    let replica = replica(64, Duration::from_secs(1)).await;
    let post = "POST /oauth2/introspect HTTP/1.1\r\nhost: a\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 50\r\n\r\ntoken=";
    let answer = read(say(&replica, post).await).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // Between two requests, too.
    let answer = read(say(&replica, "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    read(say(&replica, "").await).await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused() {
    let replica = replica(64, Duration::from_secs(5)).await;
    let long = format!("GET /livez HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(17 * 1024));
    let answer = read(say(&replica, &long).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_response_to_an_unread_body_reaches_a_client_that_sends_all_of_it_first() {
    let replica = replica(64, Duration::from_secs(5)).await;
    for length in [70_000, 1 << 20, 8 << 20] {
        let body = vec![b'x'; length];
        for (path, status) in [
            ("/oauth2/introspect", 413),
            ("/oauth2/revoke", 413),
            ("/elsewhere", 413),
            // These read no body.
            ("/auth", 401),
            ("/livez", 405),
        ] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            let mut stream = say(&replica, &head).await;
            in_time("all is sent", stream.write_all(&body)).await.unwrap();
            let answer = read(stream).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {length}: {answer}");
        }
    }
}

#[tokio::test]
async fn curl_gets_the_response_to_a_form_that_is_too_long() {
    let Some(curl) = find("curl") else { return };
    let replica = replica(64, Duration::from_secs(5)).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("form");
    // Without lingering, one in about thirty long ones lost its response.
    for (length, times) in [(70_000, 2), (1 << 20, 2), (8 << 20, 60)] {
        std::fs::write(&file, vec![b'x'; length]).unwrap();
        for path in ["/oauth2/introspect", "/oauth2/revoke"].into_iter().cycle().take(times) {
            let mut command = tokio::process::Command::new(&curl);
            command.args(["--disable", "--silent", "--show-error", "--write-out", "%{http_code}"]);
            command.arg("--data-binary").arg(format!("@{}", file.display()));
            let said = command.arg(format!("http://{}{path}", replica.http)).output().await.unwrap();
            let told = said.status.success() && said.stdout.ends_with(b"413");
            assert!(told, "{path} {length}: {said:?}");
        }
    }
}

#[tokio::test]
async fn the_shortest_request_is_answered() {
    let replica = replica(64, Duration::from_secs(5)).await;
    let answer = read(say(&replica, "GET /livez HTTP/1.0\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}
