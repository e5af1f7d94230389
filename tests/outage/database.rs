//! Postgres missing at the start, cut off, silent, or with unexpected content.

use std::time::Duration;

use tokend::api::proto::{ListTokensRequest, Verdict};
use tonic::{Code, Status};
use tonic_health::ServingStatus;

use crate::support::client::{bearing, created, ordinary, question, revocation, verified};
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica, SERVICE};
use crate::support::status::{check, refused};

/// Starts a replica whose connections to Postgres the test can cut.
async fn behind_proxy(way: LinkState) -> (Proxy, Replica) {
    let (proxy, installation) = (Proxy::start(way).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.launch(config);
    if way == LinkState::Open {
        serving(&replica).await;
    }
    (proxy, replica)
}

async fn serving(replica: &Replica) {
    eventually("health says SERVING", async || {
        (replica.health(SERVICE).await == ServingStatus::Serving).then_some(())
    })
    .await;
    assert_eq!(replica.health("").await, ServingStatus::Serving, "overall");
}

async fn not_serving(replica: &Replica) {
    eventually("health says NOT_SERVING", async || {
        (replica.health(SERVICE).await == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert_eq!(replica.health("").await, ServingStatus::NotServing, "overall");
}

/// Calls every RPC, and returns the error of each.
async fn refusals(replica: &Replica, id: &str, secret: &str) -> Vec<(&'static str, Option<Status>)> {
    let mut root = replica.root();
    vec![
        ("CreateToken", root.create_token(ordinary()).await.err()),
        ("ListTokens", root.list_tokens(ListTokensRequest::default()).await.err()),
        ("RevokeToken", root.revoke_token(revocation(id, "")).await.err()),
        ("Verify", root.verify(question(secret, &[])).await.err()),
        ("Verify of a malformed text", root.verify(question("", &[])).await.err()),
    ]
}

/// Waits until every RPC is unavailable. Until then a verdict may come from the cache, but it must
/// be right.
async fn unavailable(replica: &Replica, secret: &str) {
    let mut root = replica.root();
    eventually("every RPC is unavailable", async || {
        if let Ok(answer) = root.verify(question(secret, &[])).await {
            assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
        }
        for (_, status) in refusals(replica, &secret[5..27], secret).await {
            check(&status?, Code::Unavailable, "DATABASE_UNAVAILABLE");
        }
        Some(())
    })
    .await;
}

/// Waits until every RPC succeeds.
async fn available(replica: &Replica, secret: &str) {
    serving(replica).await;
    let mut root = replica.root();
    eventually("Verify is answered", async || {
        let answer = root.verify(question(secret, &[])).await.ok()?;
        assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
        Some(())
    })
    .await;
    let made = created(&mut root, ordinary()).await;
    root.list_tokens(ListTokensRequest::default()).await.unwrap();
    root.revoke_token(revocation(&made.token.unwrap().id, "")).await.unwrap();
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Revoked);
}

#[tokio::test]
async fn a_replica_waits_for_an_unreachable_postgres_and_then_serves() {
    let (proxy, replica) = behind_proxy(LinkState::Cut).await;
    let root_secret = replica.installation.root_secret.clone();
    not_serving(&replica).await;
    unavailable(&replica, &root_secret).await;

    proxy.set(LinkState::Open);

    available(&replica, &root_secret).await;
}

#[tokio::test]
async fn a_replica_replaces_connections_that_the_network_dropped() {
    let (proxy, replica) = behind_proxy(LinkState::Stalled).await;
    not_serving(&replica).await;
    // Long enough for a connection attempt to have started; otherwise there would be nothing to lose.
    tokio::time::sleep(Duration::from_millis(500)).await;

    proxy.lose();
    proxy.set(LinkState::Open);

    available(&replica, &replica.installation.root_secret).await;
}

#[tokio::test]
async fn calls_are_unavailable_while_postgres_is_gone_and_recover_by_themselves() {
    let (proxy, replica) = behind_proxy(LinkState::Open).await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    available(&replica, &secret).await;

    for _ in 0..2 {
        proxy.set(LinkState::Cut);
        unavailable(&replica, &secret).await;
        not_serving(&replica).await;

        proxy.set(LinkState::Open);
        available(&replica, &secret).await;
    }
}

#[tokio::test]
async fn calls_are_unavailable_while_postgres_is_silent_and_recover_by_themselves() {
    let (proxy, replica) = behind_proxy(LinkState::Open).await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    available(&replica, &secret).await;

    proxy.set(LinkState::Stalled);
    let mut root = replica.root();
    eventually("Verify is unavailable", async || match root.verify(question(&secret, &[])).await {
        Ok(answer) => {
            assert_eq!(answer.into_inner().verdict(), Verdict::Valid);
            None
        }
        Err(status) => {
            check(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
            Some(())
        }
    })
    .await;
    refused(root.create_token(ordinary()).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    not_serving(&replica).await;

    proxy.set(LinkState::Open);
    available(&replica, &secret).await;
}

#[tokio::test]
async fn in_an_outage_only_malformed_secrets_get_a_final_verdict() {
    let (proxy, replica) = behind_proxy(LinkState::Open).await;
    proxy.set(LinkState::Cut);
    not_serving(&replica).await;
    let list = async |values: &[&str]| {
        bearing(replica.channel(), values).list_tokens(ListTokensRequest::default()).await
    };

    refused(list(&[]).await, Code::Unauthenticated, "CREDENTIAL_MISSING");
    refused(list(&["Bearer tokd_typo"]).await, Code::Unauthenticated, "CREDENTIAL_MALFORMED");
    let unknown = "Bearer tokd_0000000000000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(unknown.len(), 7 + 75, "one character short, so malformed");
    refused(list(&[unknown]).await, Code::Unauthenticated, "CREDENTIAL_MALFORMED");
    // Whether this one is valid cannot be known.
    let root = format!("Bearer {}", replica.installation.root_secret);
    eventually("the root token is no longer known", async || {
        let status = list(&[&root]).await.err()?;
        check(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_schema_shows_nothing_of_itself_to_callers() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let secret = replica.installation.root_secret.clone();
    database.execute("ALTER TABLE tokens RENAME TO mislaid").await;

    unavailable(&replica, &secret).await;

    database.execute("ALTER TABLE mislaid RENAME TO tokens").await;
    available(&replica, &secret).await;
}

#[tokio::test]
async fn a_row_that_tokend_never_writes_is_an_internal_error_and_no_verdict() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let secret = created(&mut root, ordinary()).await.secret;
    let corrupt = "UPDATE tokens SET scopes = '{Not A Scope}' WHERE user_id = 'ada'";
    assert_eq!(replica.installation.database.execute(corrupt).await, 1);

    refused(root.verify(question(&secret, &[])).await, Code::Internal, "INTERNAL");

    // It is left out of lists.
    let page = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.tokens.len(), 1, "the root token alone");
    let bearer = format!("Bearer {secret}");
    let outcome = bearing(replica.channel(), &[&bearer]).list_tokens(ListTokensRequest::default()).await;
    refused(outcome, Code::Internal, "INTERNAL");
}
