//! Handshakes that are slow, broken or large.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokend::admission::request_memory::RequestLimiter;
use tokend::metrics::Metrics;
use tokend::transport::listener::{Incoming, Limits, OverLimit, accept};
use tokend::transport::tls::{Protocol, ServerTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::authority::{Authority, Files};
use crate::support::{eventually, in_time};

/// Accepts connections, and returns the address.
async fn listening(tls: Arc<ServerTls>, metrics: &Arc<Metrics>) -> (Incoming, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits =
        Limits { most: 64, idle: std::time::Duration::from_mins(1), age: None, over_limit: OverLimit::Wait };
    let requests = requests(metrics);
    (accept(listener, Some((tls, Protocol::Grpc)), limits, &requests, Arc::clone(metrics)), address)
}

fn requests(metrics: &Metrics) -> RequestLimiter {
    RequestLimiter::new(1 << 20, std::time::Duration::from_secs(10), metrics.work.requests.clone())
}

#[tokio::test]
async fn buffers_of_tls_count_during_and_after_the_handshake() {
    let authority = Authority::new();
    let tls = Files::new(&authority.good(&["localhost"]), None).load();
    let metrics = Arc::new(Metrics::new().unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits =
        Limits { most: 64, idle: std::time::Duration::from_mins(1), age: None, over_limit: OverLimit::Wait };
    let counted = requests(&metrics);
    let mut incoming = accept(listener, Some((tls, Protocol::Grpc)), limits, &counted, metrics);
    // What each connection counts for, and its buffers for half as much again as they have.
    let connection = (20 + 8) << 10;
    let taken = async |least: usize| {
        eventually("it is counted", async || (counted.taken() >= least).then_some(counted.taken())).await
    };
    // A hello of 60,000 bytes whose end does not come.
    let mut hello = TcpStream::connect(address).await.unwrap();
    hello.write_all(&[22, 3, 1, 0x40, 0, 1, 0, 0xea, 0x60]).await.unwrap();
    hello.write_all(&[3; 16_380]).await.unwrap();
    hello.write_all(&[22, 3, 1, 0x40, 0]).await.unwrap();
    hello.write_all(&[3; 16_384]).await.unwrap();
    assert!(taken(connection + 49_152).await < connection + 60_000);
    drop(hello);
    eventually("all is given back", async || (counted.taken() == 0).then_some(())).await;

    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = TlsConnector::from(Arc::new(trusting(&authority))).connect(name, stream).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    let mut served = incoming.next().await.unwrap();
    assert!(counted.taken() < connection + 1_024, "of a handshake little is kept");
    let reading = tokio::spawn(async move { served.read_to_end(&mut Vec::new()).await });
    // A whole record, and with its end the beginning of one of which a byte is missing.
    let (mut socket, mut session) = client.into_inner();
    let mut records = Vec::new();
    std::io::Write::write_all(&mut session.writer(), b"x").unwrap();
    session.write_tls(&mut records).unwrap();
    records.extend([23, 3, 3, 0x40, 0]);
    records.extend([7; 16_383]);
    socket.write_all(&records).await.unwrap();
    assert!(taken(connection + 24_582).await < connection + 30_000);
    drop(socket);
    let _ = reading.await.unwrap();
    assert_eq!(counted.taken(), 0);
}

/// How a client speaks TLS that trusts this authority.
fn trusting(authority: &Authority) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tokio::test]
async fn a_port_probe_is_not_counted_as_a_failed_handshake() {
    let authority = Authority::new();
    let tls = Files::new(&authority.good(&["localhost"]), Some(&authority)).load();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (_incoming, address) = listening(tls, &metrics).await;

    for _ in 0..10 {
        drop(TcpStream::connect(address).await.unwrap());
    }
    let mut nonsense = TcpStream::connect(address).await.unwrap();
    nonsense.write_all(b"nonsense, and no TLS").await.unwrap();

    let failed = eventually("a failure", async || {
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("tokend_handshake_failures_total "));
        line.filter(|failed| *failed != "0").map(str::to_owned)
    });
    assert_eq!(failed.await, "1");
}

#[tokio::test]
async fn a_stalled_handshake_is_cut_off() {
    let authority = Authority::new();
    let tls = Files::new(&authority.good(&["localhost"]), Some(&authority)).load();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (_incoming, address) = listening(tls, &metrics).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    // The type of a TLS record, and nothing more.
    half.write_all(&[22]).await.unwrap();

    let end = in_time("its end", half.read(&mut [0; 64])).await;

    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    assert!(text.contains("tokend_handshake_failures_total 1\n"), "{text}");
}
