//! Callers that request more than their share.

use tokend::api::proto::{CreateTokenResponse, ListTokensRequest, Verdict};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::client::{Client, bearing, created, forged, ordinary, unknown_id, verified};
use crate::support::replica::{Installation, Replica};
use crate::support::status::{check, reason};

/// Starts `number` creations concurrently, and returns the outcome of each.
async fn creations(client: &Client, number: usize) -> Vec<Result<Response<CreateTokenResponse>, Status>> {
    let calls: Vec<_> = (0..number)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.create_token(ordinary()).await })
        })
        .collect();
    let mut outcomes = Vec::with_capacity(number);
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

/// Starts a replica that computes one hash at a time, at a high cost.
async fn slow_hashing() -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.hash_permits = 1;
    config.durable_cost = tokend::secret::DurableCost::new(4096, 1, 1).unwrap();
    installation.serve(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_creations_is_refused_early_and_leaves_capacity_for_another_caller() {
    let replica = slow_hashing().await;
    let (greedy, mut modest) = (replica.root(), replica.caller("acme", &["tokend:write"]).await);

    let flood = tokio::spawn(async move { creations(&greedy, 400).await });
    let mut done = 0;
    for _ in 0..20 {
        done += usize::from(modest.create_token(ordinary()).await.is_ok());
    }
    let outcomes = flood.await.unwrap();

    assert_eq!(done, 20, "the modest caller was refused");
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(refused.len() < 400, "the greedy caller gets its own share");
    assert!(!refused.is_empty(), "the flood fitted into the queue");
    for status in refused {
        check(status, Code::ResourceExhausted, "CALLER_OVER_SHARE");
        assert!(status.get_details_retry_info().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_verdicts_continue_while_creations_flood_the_replica() {
    let replica = slow_hashing().await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    let greedy = replica.root();

    let flood = tokio::spawn(async move { creations(&greedy, 300).await });
    let mut client = replica.root();
    for _ in 0..200 {
        assert_eq!(verified(&mut client, &secret, &[]).await.verdict(), Verdict::Valid);
    }

    flood.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_guesses_credentials_is_slowed_and_no_other() {
    let replica = Replica::start().await;
    let guesses: Vec<_> = (0..64)
        .map(|_| {
            let bearer = format!("Bearer {}", forged(unknown_id()));
            let mut client = bearing(replica.channel(), &[&bearer]);
            tokio::spawn(async move { client.list_tokens(ListTokensRequest::default()).await })
        })
        .collect();

    // From the same address, but not delayed: it succeeds while the guesses are still waiting or refused.
    let mut root = replica.root();
    let secret = created(&mut root, ordinary()).await.secret;
    for _ in 0..50 {
        assert_eq!(verified(&mut root, &secret, &[]).await.verdict(), Verdict::Valid);
    }

    let held = guesses.iter().filter(|guess| !guess.is_finished()).count();
    assert!(held > 0, "no guess was held back");
    for guess in guesses {
        assert_eq!(reason(&guess.await.unwrap().unwrap_err()).as_deref(), Some("CREDENTIAL_INVALID"));
    }
}
