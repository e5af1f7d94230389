//! Responses lost on the wire: the work is done, but the caller does not know, and retries.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokend::api::proto::{CreateTokenRequest, ListTokensRequest, RotateTokenRequest, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::transport::Endpoint;

use super::{seconds, verdict};
use crate::support::client::{Client, bearing, created, new_request_id, ordinary, rotated, rotation};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

/// A proxy in front of a replica that forwards everything, until it drops every response, then the
/// connection.
struct Wire {
    address: SocketAddr,
    loses: Arc<watch::Sender<Loss>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Nothing,
    Answers,
    Connections,
}

impl Wire {
    async fn to(replica: &Replica) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let loses = Arc::new(watch::Sender::new(Loss::Nothing));
        let (server, losing) = (replica.address, Arc::clone(&loses));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(pass(client, server, losing.subscribe()));
            }
        });
        Self { address, loses }
    }

    fn client(&self, secret: &str) -> Client {
        let channel = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy();
        bearing(channel, &[&format!("Bearer {secret}")])
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut loses: watch::Receiver<Loss>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let now = loses.clone();
    let questions = tokio::io::copy(&mut from_client, &mut to_server);
    let answers = async move {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            if *now.borrow() == Loss::Nothing {
                to_client.write_all(&bytes[..read]).await.unwrap();
            }
        }
    };
    tokio::select! {
        _ = questions => {}
        () = answers => {}
        _ = loses.wait_for(|loss| *loss == Loss::Connections) => {}
    }
}

/// Sends a call whose response is lost, and returns when its work is done and its caller has an error.
async fn lose<T: Send + 'static>(
    replica: &Replica,
    wire: &Wire,
    tokens: i64,
    call: impl Future<Output = Result<T, tonic::Status>> + Send + 'static,
) {
    wire.loses.send_replace(Loss::Answers);
    let call = tokio::spawn(call);
    eventually("the work is done", async || {
        let count = replica.installation.database.count("SELECT count(*) FROM tokens").await;
        (count == tokens).then_some(())
    })
    .await;
    wire.loses.send_replace(Loss::Connections);
    let outcome = in_time("the call", call).await.unwrap();
    assert!(outcome.is_err(), "the answer was to be lost");
    wire.loses.send_replace(Loss::Nothing);
}

#[tokio::test]
async fn a_creation_whose_response_was_lost_is_answered_again() {
    let replica = Replica::start().await;
    let wire = Wire::to(&replica).await;
    let mut root = wire.client(&replica.installation.root_secret);
    root.list_tokens(ListTokensRequest::default()).await.unwrap();
    let request = CreateTokenRequest { request_id: new_request_id(), ..ordinary() };
    let (mut lost, asked) = (root.clone(), request.clone());
    lose(&replica, &wire, 2, async move { lost.create_token(asked).await }).await;

    let made = created(&mut replica.root(), request).await;

    assert_eq!(verdict(&mut replica.root(), &made.secret).await, Verdict::Valid);
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM tokens").await, 2);
}

#[tokio::test]
async fn a_token_that_rotates_itself_and_loses_the_response_is_not_locked_out() {
    let replica = Replica::start().await;
    let wire = Wire::to(&replica).await;
    let old = created(&mut replica.root(), ordinary()).await;
    let id = old.token.unwrap().id;
    let mut itself = wire.client(&old.secret);
    itself.list_tokens(ListTokensRequest::default()).await.unwrap_err();
    let request =
        RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(&id) };
    let (mut lost, asked) = (itself.clone(), request.clone());
    lose(&replica, &wire, 3, async move { lost.rotate_token(asked).await }).await;

    let new = rotated(&mut replica.client(&old.secret), request).await;

    assert_eq!(new.token.unwrap().rotated_from, id);
    assert_eq!(verdict(&mut replica.root(), &new.secret).await, Verdict::Valid);
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM tokens").await, 3);
}
