//! A caller's own credential is valid only from the networks of its token: what counts is the
//! address of the caller.

use tokend::api::proto::{CreateTokenRequest, ListTokensRequest, VerifyStreamRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::methods::{call, methods};
use crate::support::client::{created, ordinary, question, texts};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{check, refused};

fn within(networks: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { allowed_cidrs: texts(networks), scopes: texts(&["tokend:root"]), ..ordinary() }
}

#[tokio::test]
async fn a_credential_is_refused_outside_its_networks() {
    let replica = Replica::shared().await;
    let secret = created(&mut replica.root(), within(&["10.0.0.0/8", "::/0"])).await.secret;

    for method in methods() {
        let outcome = call(replica, &[&format!("Bearer {secret}")], &method).await;
        refused(outcome, Code::Unauthenticated, "CREDENTIAL_IP_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn a_credential_is_accepted_inside_its_networks() {
    let replica = Replica::start().await;

    for networks in [&["127.0.0.0/8"][..], &["10.0.0.0/8", "127.0.0.1/32"], &["::ffff:127.0.0.1/128"]] {
        let secret = created(&mut replica.root(), within(networks)).await.secret;
        let mut caller = replica.client(&secret);
        caller.list_tokens(ListTokensRequest::default()).await.unwrap();
        caller.verify(question(&secret, &[])).await.unwrap();
        created(&mut caller, within(&["127.0.0.1/32"])).await;
    }
}

#[tokio::test]
async fn a_caller_creates_no_privileged_token_that_is_usable_outside_its_networks() {
    let replica = Replica::shared().await;
    let secret = created(&mut replica.root(), within(&["127.0.0.0/8"])).await.secret;
    let mut caller = replica.client(&secret);

    for wider in [&[][..], &["0.0.0.0/0"], &["127.0.0.0/8", "10.0.0.0/8"]] {
        let outcome = caller.create_token(within(wider)).await;
        refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
    created(&mut caller, ordinary()).await;
}

#[tokio::test]
async fn a_change_and_a_stream_fail_after_the_networks_are_removed() {
    let replica = Replica::start().await;
    let secret = created(&mut replica.root(), within(&["127.0.0.0/8"])).await.secret;
    let mut caller = replica.client(&secret);
    let (questions, asked) = tokio::sync::mpsc::channel(1);
    let ask = VerifyStreamRequest { request: Some(question("no secret", &[])) };
    questions.send(ask.clone()).await.unwrap();
    let mut answers = caller.verify_stream(ReceiverStream::new(asked)).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();

    let narrow = "UPDATE tokens SET allowed_cidrs = '{10.0.0.0/8}' WHERE allowed_cidrs <> '{}'";
    assert_eq!(replica.installation.database.execute(narrow).await, 1);

    refused(caller.create_token(ordinary()).await, Code::Unauthenticated, "CREDENTIAL_IP_NOT_ALLOWED");
    let status = eventually("the stream ends", async || {
        questions.send(ask.clone()).await.unwrap();
        answers.message().await.err()
    })
    .await;
    check(&status, Code::Unauthenticated, "CREDENTIAL_IP_NOT_ALLOWED");
}
