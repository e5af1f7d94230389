//! The promise of a local verifier: its local verdicts include every change that was committed longer ago
//! than the declared staleness; otherwise it asks, or fails. Each test breaks something else.
//!
//! What each guard is for, shown by taking it out: without the fill guard or the recent changes, `held.rs`
//! finds an old answer cached; with the age counted from a message's arrival instead of its time, the slow
//! connection below is judged by; without the end of freshness, the held and the frozen ones are.

use std::time::{Duration, Instant};

use tokend_client::{LocalConfig, Verdict, Verifier};

use super::asking::{asked, client_at, holding, is_held, judged_here, root, verdict};
use crate::fleet::{Process, url};
use crate::hold::{Hold, READ, make_holdable};
use crate::setup::{Made, in_cache, is_valid, made, revoking};
use crate::support::client::revoked;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

const STALENESS: Duration = Duration::from_secs(1);

/// Asks until the local verdict is no longer VALID: then there must be none. Every VALID was asked
/// for no later than the staleness after `committed`.
async fn ends_in_time(verifier: &Verifier, token: &Made, committed: Instant) {
    loop {
        let asking = Instant::now();
        if judged_here(verifier, &token.secret) != Some(Verdict::Valid) {
            return;
        }
        assert!(asking.duration_since(committed) <= STALENESS, "VALID later than declared");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Creates a local verifier that watches through a proxy and asks directly, and a token that it has cached.
async fn watched_through_a_proxy(replica: &Replica) -> (Proxy, Verifier, Made) {
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let watch = client_at(proxy.address(), &replica.installation.root_secret);
    let config = LocalConfig::default().staleness(STALENESS).watch_through(watch);
    let (verifier, token) = holding(replica, config).await;
    (proxy, verifier, token)
}

/// Waits until the token's revocation is known; until then no verdict may be.
async fn becomes_known(verifier: &Verifier, token: &Made) {
    eventually("it is known", async || {
        let verdict = asked(verifier, &token.secret).await.ok()?.verdict;
        assert_eq!(verdict, Verdict::Revoked);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_in_flight_during_a_revocation_is_neither_cached_nor_valid() {
    let installation = Installation::new().await;
    make_holdable(&installation.database, READ).await;
    let replica = installation.serve(installation.config()).await;
    let database = &installation.database;
    let (verifier, _) = holding(&replica, LocalConfig::default()).await;
    // Repeated if this machine was too slow for the loader's timeout.
    eventually("an answer that outlives a revocation", async || {
        let (token, follows) = (made(&mut replica.root()).await, made(&mut replica.root()).await);
        is_held(&verifier, &follows).await;
        let hold = Hold::begin(database).await;
        let (asking, secret) = (verifier.clone(), token.secret.clone());
        let answer = tokio::spawn(async move { asked(&asking, &secret).await });
        hold.a_read_waits(database).await;
        database.execute(revoking(&token)).await;
        // Reported after the revocation, or with it.
        database.execute(revoking(&follows)).await;
        eventually("the verifier has heard of it", async || {
            judged_here(&verifier, &follows.secret).is_none().then_some(())
        })
        .await;
        hold.end().await;
        let answer = in_time("the held question", answer).await.unwrap().ok()?;
        assert_eq!(answer.verdict, Verdict::Revoked);
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_a_lagging_replica_is_neither_cached_nor_used_after_a_reported_change() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let ahead = installation.serve(installation.config()).await;
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    config.bounds.max_staleness = Duration::from_mins(1);
    let behind = installation.serve(config).await;
    let token = made(&mut ahead.root()).await;
    in_cache(&mut behind.root(), &token).await;
    let verifier =
        Verifier::local(root(&behind), LocalConfig::default().watch_through(root(&ahead))).unwrap();
    is_held(&verifier, &token).await;

    proxy.set(LinkState::Stalled);
    revoked(&mut ahead.root(), &token.id, "").await;

    eventually("it is heard of", async || judged_here(&verifier, &token.secret).is_none().then_some(()))
        .await;
    is_valid(&mut behind.root(), &token).await;
    for _ in 0..3 {
        // The database cannot be asked, so the verdict is not known.
        assert!(asked(&verifier, &token.secret).await.is_err());
        assert_eq!(judged_here(&verifier, &token.secret), None);
    }
    proxy.set(LinkState::Open);
    becomes_known(&verifier, &token).await;
}

#[tokio::test]
async fn a_blocked_watch_ends_local_verdicts() {
    let replica = Replica::start().await;
    let (proxy, verifier, token) = watched_through_a_proxy(&replica).await;

    proxy.set(LinkState::Stalled);
    revoked(&mut replica.root(), &token.id, "").await;
    let committed = Instant::now();

    ends_in_time(&verifier, &token, committed).await;
    // It is asked of tokend, and answered.
    assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
    proxy.set(LinkState::Open);
    eventually("it judges again", async || {
        verifier.local_status().unwrap().age.filter(|age| *age < STALENESS)
    })
    .await;
    assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
}

#[tokio::test]
async fn a_constant_delay_of_the_watch_is_accounted_for() {
    let replica = Replica::start().await;
    let (proxy, verifier, token) = watched_through_a_proxy(&replica).await;

    // Messages continue to come, as often as before.
    proxy.set(LinkState::Slow(2 * STALENESS));
    revoked(&mut replica.root(), &token.id, "").await;
    let committed = Instant::now();

    ends_in_time(&verifier, &token, committed).await;
    let answered = verifier.local_status().unwrap().local_verdicts;
    let until = Instant::now() + 4 * STALENESS;
    while Instant::now() < until {
        assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        verifier.local_status().unwrap().local_verdicts,
        answered,
        "nothing is new enough to judge by"
    );
}

#[tokio::test]
async fn a_frozen_tokend_ends_local_verdicts_and_gives_none() {
    let installation = Installation::new().await;
    let frozen = Process::start(&installation, &url(&installation.database), &[]).await;
    let other = installation.serve(installation.config()).await;
    let client = tokend_client::Connection::to(&*frozen.url)
        .secret((&*installation.root_secret).into())
        .call_timeout(Duration::from_millis(500));
    let verifier =
        Verifier::local(client.open().unwrap(), LocalConfig::default().staleness(STALENESS)).unwrap();
    let token = made(&mut other.root()).await;
    is_held(&verifier, &token).await;

    frozen.freeze();
    revoked(&mut other.root(), &token.id, "").await;
    let committed = Instant::now();

    ends_in_time(&verifier, &token, committed).await;
    assert!(asked(&verifier, &token.secret).await.is_err());
    frozen.thaw();
    becomes_known(&verifier, &token).await;
}

#[tokio::test]
async fn an_unreachable_database_ends_local_verdicts() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    let (verifier, token) = holding(&replica, LocalConfig::default().staleness(STALENESS)).await;

    // The stream stays open, but silent.
    proxy.set(LinkState::Stalled);
    installation.database.execute(revoking(&token)).await;
    let committed = Instant::now();

    ends_in_time(&verifier, &token, committed).await;
    proxy.set(LinkState::Open);
    eventually("it is known", async || {
        let verdict = asked(&verifier, &token.secret).await.ok()?.verdict;
        (verdict == Verdict::Revoked).then_some(())
    })
    .await;
    assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
}
