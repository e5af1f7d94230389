//! Limits on what one client may hold.

use std::time::Duration;

use tokend::grpc::proto::ListTokensRequest;
use tonic::Request;

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
    // The connections of the start's health checks end by themselves.
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
async fn metadata_beyond_its_limit_is_refused_and_the_server_goes_on() {
    let replica = Replica::start().await;
    let mut request = Request::new(ListTokensRequest::default());
    request.metadata_mut().insert("x-padding", "x".repeat(20 * 1024).parse().unwrap());

    assert!(replica.root().list_tokens(request).await.is_err());

    assert!(answers(&mut replica.root()).await);
}
