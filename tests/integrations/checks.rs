//! `HAProxy`'s own health checks, as shown in docs/operations.md, against both listeners.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::program::{Running, TestDir, find, free_address};
use crate::support::eventually;
use crate::support::program::shown;
use crate::support::replica::{Installation, Replica};

const GUIDE: &str = include_str!("../../docs/operations.md");

/// Starts `HAProxy` with the guide's configuration; returns it with its statistics socket.
fn start(program: &std::path::Path, replica: &Replica, more: &str) -> (Running, std::path::PathBuf) {
    let test_dir = TestDir::new();
    let socket = test_dir.path().join("stats");
    let text = shown(GUIDE, "haproxy-tokend.cfg")
        .replace("10.0.0.5:50051", &replica.address.to_string())
        .replace("port 9090", &format!("port {}", replica.http.port()))
        .replace("127.0.0.1:50052", &free_address().to_string())
        .replace("inter 2s", "inter 100ms");
    let file = test_dir.write(
        "haproxy.cfg",
        &format!("global\n    stats socket {} level user\n{text}\n{more}\n", socket.display()),
    );
    (test_dir.start(program, &["-db", "-f", &file]), socket)
}

/// Returns the status of a server, and the result of its last check.
async fn found(socket: &std::path::Path, backend: &str, server: &str) -> Option<(String, String)> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream.write_all(b"show stat\n").await.unwrap();
    let mut table = String::new();
    stream.read_to_string(&mut table).await.unwrap();
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |name: &str| names.iter().position(|found| *found == name).unwrap();
    let (status, check) = (column("status"), column("check_status"));
    let mut rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let row = rows.find(|row| row.starts_with(&[backend, server]))?;
    // Before the first check has ended, and during a check (`*`), there is no result.
    Some((row[status].to_owned(), row[check].to_owned())).filter(|(_, check)| check.starts_with('L'))
}

#[tokio::test]
async fn haproxy_finds_a_replica_up_by_its_own_httpchk() {
    let Some(program) = find("haproxy") else { return };
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    // Without a separate port the check goes to the gRPC port, which speaks no HTTP/1: the refusal
    // comes at once, not when the check times out.
    let more = format!(
        "backend others\n    mode http\n    timeout check 4s\n    option httpchk GET /livez\n    \
         server http {} check inter 100ms\n    server grpc {} check inter 100ms",
        replica.http, replica.address
    );
    let (haproxy, socket) = start(&program, &replica, &more);

    for (backend, server, expected) in [
        ("tokend", "one", &["L7OK"][..]),
        ("others", "http", &["L7OK"]),
        ("others", "grpc", &["L7STS", "L7RSP"]),
    ] {
        let ended = eventually("a check has ended", async || {
            let (status, check) = found(&socket, backend, server).await?;
            // Servers count as up until a check has failed.
            Some(check.clone()).filter(|_| status == if check == "L7OK" { "UP" } else { "DOWN" })
        });
        let ended = ended.await;
        assert!(expected.contains(&&*ended), "{backend}/{server}: {ended} {}", haproxy.log());
    }
}
