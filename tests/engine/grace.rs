//! An outage with a grace period: what was VALID stays so for a while, with an `as_of_time` that
//! shows its age, and everything else is UNAVAILABLE; and an outage without one.

use std::time::Duration;

use tokend::api::proto::{Consistency, Verdict, VerifyRequest};
use tokend::verify::Bounds;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::ServingStatus;

use super::setup::{Made, becomes, cached, in_cache, made};
use crate::support::client::{forged, nanos, question, revoked, unknown_id};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica, SERVICE};
use crate::support::status::refused;
use crate::support::{eventually, in_time};

async fn with_grace(outage_grace: Duration) -> (Proxy, Replica) {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    config.bounds = Bounds { max_staleness: Duration::from_millis(200), outage_grace };
    // More than may wait for a read.
    config.limits.calls = 16_384;
    let replica = installation.serve(config).await;
    (proxy, replica)
}

/// Waits until the age of a response shows that the cache is served in place of the database.
async fn answers_stale(replica: &Replica, token: &Made) {
    let mut root = replica.root();
    let ask = async || {
        let answer = root.verify(question(&token.secret, &[])).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Valid);
        let age = super::witness::wall() - nanos(answer.as_of_time.as_ref());
        (age > 500_000_000).then_some(())
    };
    let mut ask = ask;
    eventually("the answer is openly old", async || ask().await).await;
}

#[tokio::test]
async fn in_the_outage_grace_only_valid_verdicts_continue_and_show_their_age() {
    for way in [LinkState::Cut, LinkState::Stalled] {
        let (proxy, replica) = with_grace(Duration::from_mins(2)).await;
        let mut root = replica.root();
        let (live, gone) = (cached(&mut root).await, cached(&mut root).await);
        let unread = made(&mut root).await;
        revoked(&mut root, &gone.id, "").await;
        becomes(&mut root, &gone, Verdict::Revoked).await;
        in_cache(&mut root, &live).await;

        proxy.set(way);

        answers_stale(&replica, &live).await;
        assert_eq!(replica.health(SERVICE).await, ServingStatus::Serving);
        let unavailable = [
            question(&gone.secret, &[]),
            question(&unread.secret, &[]),
            question(&live.secret, &["a:b"]),
            question(&forged(tokend::secret::TokenId::parse(&live.id).unwrap()), &[]),
            question(&forged(unknown_id()), &[]),
            VerifyRequest { consistency: Consistency::Full.into(), ..question(&live.secret, &[]) },
        ];
        for question in unavailable {
            refused(root.verify(question).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
        }

        proxy.set(LinkState::Open);
        becomes(&mut root, &gone, Verdict::Revoked).await;
        in_cache(&mut root, &live).await;
    }
}

#[tokio::test]
async fn a_silent_database_and_many_callers_do_not_shorten_the_grace() {
    let (proxy, replica) = with_grace(Duration::from_mins(2)).await;
    let mut root = replica.root();
    let live = cached(&mut root).await;
    proxy.set(LinkState::Stalled);
    answers_stale(&replica, &live).await;

    // All for the same token.
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (mut client, secret) = (replica.root(), live.secret.clone());
        callers.spawn(async move {
            let questions = futures_of(&mut client, &secret).await;
            assert!(questions.iter().all(|verdict| *verdict == Some(Verdict::Valid)));
        });
    }
    let callers = async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    };
    in_time("6,400 answers in an outage", callers).await;
}

/// Sends a hundred requests concurrently.
async fn futures_of(client: &mut crate::support::client::Client, secret: &str) -> Vec<Option<Verdict>> {
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let (mut client, question) = (client.clone(), question(secret, &[]));
        asking.spawn(async move {
            client.verify(question).await.ok().map(|answer| answer.into_inner().verdict())
        });
    }
    asking.join_all().await
}

#[tokio::test]
async fn after_the_outage_grace_verdicts_are_unavailable() {
    let (proxy, replica) = with_grace(Duration::from_millis(800)).await;
    let mut root = replica.root();
    let live = cached(&mut root).await;

    proxy.set(LinkState::Cut);

    eventually("the end of the grace", async || match root.verify(question(&live.secret, &[])).await {
        Ok(answer) => {
            assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
            None
        }
        Err(status) => {
            super::setup::assert_unavailable(&status);
            Some(())
        }
    })
    .await;
    for _ in 0..3 {
        let outcome = root.verify(question(&live.secret, &[])).await;
        refused(outcome, Code::Unavailable, "DATABASE_UNAVAILABLE");
    }
    eventually("health says so", async || {
        (replica.health(SERVICE).await == ServingStatus::NotServing).then_some(())
    })
    .await;

    proxy.set(LinkState::Open);
    in_cache_again(&replica, &live).await;
}

async fn in_cache_again(replica: &Replica, token: &Made) {
    let mut root = replica.root();
    in_cache(&mut root, token).await;
}
