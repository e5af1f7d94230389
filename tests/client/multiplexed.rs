//! Many questions over one call, also when it breaks.

use std::time::Duration;

use tokend_client::{Connection, ErrorKind, Verdict, Verifier, VerifyRequest};
use tokio::task::JoinSet;

use super::asking::{asked, client_at, root, verdict};
use crate::setup::{Made, made};
use crate::support::client::{created_with, forged, revoked};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

/// Creates tokens, of which every other one is revoked.
async fn some(replica: &Replica) -> Vec<(Made, Verdict)> {
    let mut root = replica.root();
    let mut tokens = Vec::new();
    for number in 0..20 {
        let token = made(&mut root).await;
        let verdict = if number % 2 == 0 { Verdict::Valid } else { Verdict::Revoked };
        if verdict == Verdict::Revoked {
            revoked(&mut root, &token.id, "").await;
        }
        tokens.push((token, verdict));
    }
    tokens
}

/// Asks all questions concurrently, many times, and checks that each gets its own answer.
async fn all_are_answered(verifier: &Verifier, tokens: &[(Made, Verdict)]) {
    let mut asking = JoinSet::new();
    for (token, expected) in tokens.iter().cycle().take(400).cloned() {
        let verifier = verifier.clone();
        asking.spawn(async move {
            // Without a cost, since what may have spent is not sent again.
            let answer = verifier.verify(&VerifyRequest::new(&token.secret).cost(0)).await.unwrap();
            assert_eq!((answer.verdict, answer.token.unwrap().id.to_string()), (expected, token.id));
        });
    }
    in_time("all answers", asking.join_all()).await;
}

#[tokio::test]
async fn each_request_gets_its_own_response() {
    let replica = Replica::shared().await;
    let tokens = some(replica).await;

    all_are_answered(&Verifier::multiplexed(root(replica)).unwrap(), &tokens).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_in_order() {
    let replica = Replica::shared().await;
    let token = made(&mut replica.root()).await;
    let client = Connection::to(format!("http://{}", replica.address))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(Duration::from_secs(20));
    let verifier = Verifier::multiplexed(client.open().unwrap()).unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..2_500 {
        let (verifier, secret) = (verifier.clone(), token.secret.clone());
        asking.spawn(async move { assert_eq!(verdict(&verifier, &secret).await, Verdict::Valid) });
    }
    in_time("all answers", asking.join_all()).await;
}

#[tokio::test]
async fn unanswered_requests_are_sent_again_after_the_stream_breaks() {
    let replica = Replica::start().await;
    let tokens = some(&replica).await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let verifier =
        Verifier::multiplexed(client_at(proxy.address(), &replica.installation.root_secret)).unwrap();
    all_are_answered(&verifier, &tokens).await;

    for _ in 0..5 {
        // Held first, so that questions are in progress when it breaks.
        proxy.set(LinkState::Stalled);
        let (others, all) = (verifier.clone(), tokens.clone());
        let asking = tokio::spawn(async move { all_are_answered(&others, &all).await });
        tokio::task::yield_now().await;
        proxy.cut();
        proxy.set(LinkState::Open);
        asking.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_may_have_spent_is_sent_again_only_where_that_is_allowed() {
    let replica = Replica::start().await;
    let token = made(&mut replica.root()).await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let connection = Connection::to(format!("http://{}", proxy.address()))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(Duration::from_secs(20));
    for (connection, repeated) in [(connection.clone(), false), (connection.repeat_spending(), true)] {
        for verifier in [
            Verifier::unary(connection.open().unwrap()),
            Verifier::multiplexed(connection.open().unwrap()).unwrap(),
        ] {
            assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Valid);
            let before = proxy.held_bytes();
            proxy.set(LinkState::Stalled);
            let (asking, secret) = (verifier.clone(), token.secret.clone());
            let asking = tokio::spawn(async move { asked(&asking, &secret).await });
            // More than the frames that keep a connection.
            eventually("the request waits at the proxy", async || {
                (proxy.held_bytes() >= before + 64).then_some(())
            })
            .await;
            proxy.cut();
            proxy.set(LinkState::Open);

            let outcome = in_time("its end", asking).await.unwrap();
            let outcome = outcome.map(|answer| answer.verdict).map_err(|error| error.kind());
            assert_eq!(outcome, if repeated { Ok(Verdict::Valid) } else { Err(ErrorKind::Unavailable) });
        }
    }
}

#[tokio::test]
async fn a_draining_replica_is_replaced_by_the_next_one() {
    let first = Replica::start().await;
    let tokens = some(&first).await;
    let installation = first.installation.clone();
    let proxy = Proxy::to_port(first.address, LinkState::Open).await;
    let verifier = Verifier::multiplexed(client_at(proxy.address(), &installation.root_secret)).unwrap();
    all_are_answered(&verifier, &tokens).await;

    let second = installation.serve(installation.config()).await;
    proxy.lead_to_port(second.address);
    in_time("the first one's end", first.shut_down().outcome()).await.unwrap();

    all_are_answered(&verifier, &tokens).await;
}

#[tokio::test]
async fn a_request_that_ends_the_stream_fails_no_other() {
    let replica = Replica::shared().await;
    let mut admin = replica.root();
    let caller = created_with(&mut admin, "acme", &["tokend:verify"]).await;
    let own: Made = created_with(&mut admin, "acme", &[]).await.into();
    let verifier = Verifier::multiplexed(client_at(replica.address, &caller.secret)).unwrap();
    assert_eq!(verdict(&verifier, &own.secret).await, Verdict::Valid);

    // Any text gets a verdict, not an error.
    assert_eq!(verdict(&verifier, "no secret").await, Verdict::Malformed);
    assert_eq!(verdict(&verifier, &forged(own.id.parse().unwrap())).await, Verdict::NotFound);
    assert_eq!(verdict(&verifier, &own.secret).await, Verdict::Valid);

    // The end of the caller's own token answers all of its questions.
    revoked(&mut admin, &caller.token.unwrap().id, "").await;
    eventually("the caller is refused", async || {
        (asked(&verifier, &own.secret).await.err()?.kind() == ErrorKind::Unauthenticated).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_tokend_gives_no_verdict() {
    let replica = Replica::start().await;
    let token = made(&mut replica.root()).await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let client = tokend_client::Connection::to(format!("http://{}", proxy.address()))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(std::time::Duration::from_millis(500));
    for verifier in
        [Verifier::unary(client.open().unwrap()), Verifier::multiplexed(client.open().unwrap()).unwrap()]
    {
        assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Valid);
        proxy.set(LinkState::Stalled);
        assert_eq!(asked(&verifier, &token.secret).await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        proxy.set(LinkState::Open);
        eventually("it answers again", async || asked(&verifier, &token.secret).await.ok()).await;
    }
}
