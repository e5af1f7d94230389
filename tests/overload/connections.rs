//! Limits on the connections of one client.

use std::time::Duration;

use tokend::api::proto::ListTokensRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Request as Call;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
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
    let mut request = Call::new(ListTokensRequest::default());
    request.metadata_mut().insert("x-padding", "x".repeat(20 * 1024).parse().unwrap());

    assert!(replica.root().list_tokens(request).await.is_err());

    assert!(answers(&mut replica.root()).await);
}

/// Opens a connection from this address that begins HTTP/2 and does nothing more; fails unless it is served.
async fn served(replica: &Replica, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = in_time("a connection", socket.connect(replica.address)).await.unwrap();
    let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(begin).await.unwrap();
    // The server's settings.
    in_time("an answer", stream.read_exact(&mut [0; 9])).await.unwrap();
    stream
}

#[tokio::test]
async fn unauthenticated_connections_keep_no_newcomer_out_and_end_no_authenticated_one() {
    const MAX_CONNECTIONS: usize = 64;
    let replica = with_connections(MAX_CONNECTIONS).await;
    // From one address, then one from each of many.
    for flood in [|_| [127, 0, 0, 1], |number| [127, 0, 1, number]] {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let authenticated = tokio::spawn(connection);
        let call = async || {
            let request = Request::post("http://tokend/tokend.v1.TokenService/ListTokens")
                .header("content-type", "application/grpc")
                .header("authorization", format!("Bearer {}", replica.installation.root_secret));
            let mut requests = requests.clone().ready().await.unwrap();
            let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
            let answer = in_time("an answer", answer).await.unwrap();
            assert_eq!(answer.headers().get("grpc-status"), None, "{answer:?}");
        };
        call().await;
        let mut open = Vec::new();
        for number in 0..100 {
            open.push(served(&replica, flood(number + 1)).await);
        }

        served(&replica, [127, 0, 0, 1]).await;
        served(&replica, [127, 0, 0, 2]).await;
        assert!(!authenticated.is_finished());
        call().await;
        let mut still_open = 0;
        for stream in &mut open {
            let ended = async { while let Ok(1..) = stream.read(&mut [0; 1024]).await {} };
            still_open += usize::from(tokio::time::timeout(Duration::from_millis(5), ended).await.is_err());
        }
        assert!(still_open < MAX_CONNECTIONS, "{still_open} connections are open");
    }
}

#[tokio::test]
async fn an_address_may_have_most_connections_and_another_still_gets_one() {
    let replica = with_connections(32).await;
    let mut open = Vec::new();
    // Authenticated connections are not closed for others, and those beyond the share of their address are closed at once.
    loop {
        let mut root = replica.root();
        if !in_time("an answer or the end", answers(&mut root)).await {
            break;
        }
        open.push(root);
        assert!(open.len() < 32, "an address has all connections");
    }
    assert!(open.len() > 20, "{} connections", open.len());

    served(&replica, [127, 0, 0, 2]).await;
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
