//! Limits on the connections of one client.

use std::time::Duration;

use tokend::api::proto::ListTokensRequest;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::client::Client;
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

pub(super) async fn answers(client: &mut Client) -> bool {
    client.list_tokens(ListTokensRequest::default()).await.is_ok()
}

pub(super) async fn with_connections(connections: usize) -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.limits.connections = connections;
    installation.serve(config).await
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_others_end() {
    let replica = with_connections(2).await;
    // The connections of the health checks at the start end by themselves.
    let (mut first, mut second) = (replica.root(), replica.root());
    eventually("two connections are taken", async || answers(&mut first).await.then_some(())).await;
    eventually("two connections are taken", async || answers(&mut second).await.then_some(())).await;

    let mut third = replica.root();
    let waited = tokio::time::timeout(Duration::from_millis(300), answers(&mut third)).await;
    assert!(waited.is_err(), "a third connection was served");

    drop(first);
    assert!(in_time("the third connection's turn", answers(&mut third)).await);
    assert!(answers(&mut second).await);
}

#[tokio::test]
async fn metadata_over_its_limit_is_refused_and_the_server_continues() {
    let replica = Replica::start().await;
    let mut request = Request::new(ListTokensRequest::default());
    request.metadata_mut().insert("x-padding", "x".repeat(20 * 1024).parse().unwrap());

    assert!(replica.root().list_tokens(request).await.is_err());

    assert!(answers(&mut replica.root()).await);
}

#[tokio::test]
async fn an_address_may_have_most_connections_and_another_still_gets_one() {
    let replica = with_connections(64).await;
    let mut open = Vec::new();
    // Connections beyond its share are closed at once.
    loop {
        let mut stream = TcpStream::connect(replica.address).await.unwrap();
        let closed = async { matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) };
        if tokio::time::timeout(Duration::from_millis(50), closed).await == Ok(true) {
            break;
        }
        open.push(stream);
        assert!(open.len() < 64, "an address has all connections");
    }
    assert!(open.len() > 40, "{} connections", open.len());

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let stream = in_time("a connection", socket.connect(replica.address)).await.unwrap();
    let (requests, connection) = in_time("a handshake", h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    in_time("its turn", requests.ready()).await.unwrap();
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn a_connection_without_a_call_ends_and_one_with_a_call_stays() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.limits.timeouts.idle = Duration::from_secs(1);
    let replica = installation.serve(config).await;
    let mut health = HealthClient::new(replica.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    in_time("what is so", watch.message()).await.unwrap();

    for _ in 0..2 {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        // The client answers PINGs by itself.
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        in_time("the end", connection).await.unwrap();
        drop(requests);
    }

    let output = tokio::time::timeout(Duration::from_millis(100), watch.message()).await;
    assert!(output.is_err(), "{output:?}");
}
