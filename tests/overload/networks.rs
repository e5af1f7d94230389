//! Connections from IPv6 addresses of one /64, which one client can have, and of two. Loopback has only one IPv6 address,
//! so the test runs once more in a network namespace of its own, where it can add others.

use std::env;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokend::admission::request_memory::RequestLimiter;
use tokend::metrics::Metrics;
use tokend::transport::listener::{Limits, OverLimit, accept};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::support::in_time;
use crate::support::program::find;

/// Set inside of the namespace.
const INSIDE: &str = "TOKEND_TEST_NAMESPACE";

const ADDRESSES: &str = "fd00:0:0:1::1 fd00:0:0:1::2 fd00:0:0:2::1";

/// The most connections of the listener.
const MAX_CONNECTIONS: usize = 32;

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn two_addresses_of_one_ipv6_64_have_no_more_connections_than_one_address() {
    if env::var_os(INSIDE).is_some() {
        let runtime = Runtime::new().unwrap();
        let of_one = runtime.block_on(served(["fd00:0:0:1::1", "fd00:0:0:1::2"]));
        let of_two = runtime.block_on(served(["fd00:0:0:1::1", "fd00:0:0:2::1"]));
        assert!(20 < of_one && of_one < of_two, "{of_one} and {of_two} connections");
        return;
    }
    let (Some(unshare), Some(_)) = (find("unshare"), find("ip")) else { return };
    let mut isolated = Command::new(unshare);
    isolated.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
    // Some systems let only root have a namespace, and some nobody.
    let prepare = format!(
        "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up || exit 77
         for address in {ADDRESSES}; do ip address add $address/64 dev lo nodad || exit 77; done
         exec \"$0\" --exact networks::two_addresses_of_one_ipv6_64_have_no_more_connections_than_one_address"
    );
    let status = isolated.arg(prepare).arg(env::current_exe().unwrap()).env(INSIDE, "1").status().unwrap();
    if matches!(status.code(), Some(1 | 77)) {
        eprintln!("skipped: a network namespace is not permitted");
        return;
    }
    assert!(status.success(), "{status}");
}

/// Opens connections of authenticated peers from these addresses in turn until one is refused; returns how many were served.
async fn served(from: [&str; 2]) -> usize {
    let metrics = Arc::new(Metrics::new().unwrap());
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = Limits {
        most: MAX_CONNECTIONS,
        idle: Duration::from_mins(1),
        age: None,
        over_limit: OverLimit::Wait,
    };
    let requests = RequestLimiter::new(1 << 24, Duration::from_secs(10), metrics.work.requests.clone());
    let mut incoming = accept(listener, None, limits, &requests, metrics);
    tokio::spawn(async move {
        while let Some(mut connection) = incoming.next().await {
            // So that it is not closed for a new one.
            connection.authenticated().store(true, Ordering::Relaxed);
            tokio::spawn(async move {
                connection.write_all(b".").await.unwrap();
                let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
            });
        }
    });
    let mut open: Vec<TcpStream> = Vec::new();
    for address in from.into_iter().cycle().take(MAX_CONNECTIONS) {
        let address: Ipv6Addr = address.parse().unwrap();
        let socket = TcpSocket::new_v6().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        let target = SocketAddr::from((address, port));
        let mut stream = in_time("a connection", socket.connect(target)).await.unwrap();
        let mut answer = Vec::new();
        let answered = async {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
            stream.read_buf(&mut answer).await
        };
        if !matches!(in_time("an answer or the end", answered).await, Ok(1..)) {
            break;
        }
        open.push(stream);
    }
    open.len()
}
