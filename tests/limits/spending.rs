//! What Verify spends: of one replica, over several limits, and what it says.

use std::time::Duration;

use tokend::api::proto::{Consistency, UpdateTokenRequest, Verdict, VerifyRequest};
use tonic::Code;

use super::plans::{balance, credits, limited, plan, rate, remaining, spent, verdicts};
use crate::support::client::{mask, revoked, rotated, rotation};
use crate::support::eventually;
use crate::support::replica::Replica;

const VALID: Verdict = Verdict::Valid;

#[tokio::test]
async fn a_rate_admits_its_burst_and_says_what_is_left() {
    let replica = Replica::start().await;
    plan(&replica.installation.database, "free", &[("calls", "token", rate(5))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;

    for left in [4, 3, 2] {
        let answer = spent(&mut root, &token.secret, 1).await;
        assert_eq!((answer.verdict(), remaining(&answer)), (VALID, vec![("calls", left)]));
        assert_eq!((answer.limits[0].limit, answer.retry_after), (5, None));
    }
    assert_eq!(remaining(&spent(&mut root, &token.secret, 0).await), [("calls", 2)], "cost 0 spends nothing");
    let refused = spent(&mut root, &token.secret, 3).await;
    assert_eq!(refused.verdict(), Verdict::RateLimited);
    assert_eq!(remaining(&refused), [("calls", 2)], "a refusal spends nothing");
    assert!(refused.retry_after.unwrap().seconds >= 0);
    assert!(refused.token.is_some());
    assert_eq!(spent(&mut root, &token.secret, 6).await.retry_after, None, "it never fits");
    assert_eq!(spent(&mut root, &token.secret, u32::MAX).await.retry_after, None);
    assert_eq!(spent(&mut root, &token.secret, 2).await.verdict(), VALID);
    assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), Verdict::RateLimited);
    assert_eq!(spent(&mut root, &token.secret, 0).await.verdict(), VALID);
}

#[tokio::test]
async fn several_limits_spend_all_or_none_and_one_can_be_named() {
    let replica = Replica::start().await;
    let limits =
        [("calls", "token", rate(100)), ("money", "user", credits(5)), ("all", "organization", rate(8))];
    plan(&replica.installation.database, "gold", &limits).await;
    let mut root = replica.root();
    let (first, second) = (limited(&mut root, "gold").await, limited(&mut root, "gold").await);

    assert_eq!(
        remaining(&spent(&mut root, &first.secret, 3).await),
        [("calls", 97), ("money", 2), ("all", 5)]
    );
    let refused = spent(&mut root, &second.secret, 3).await;
    assert_eq!((refused.verdict(), refused.retry_after), (Verdict::CreditsExhausted, None));
    assert_eq!(
        remaining(&spent(&mut root, &second.secret, 0).await),
        [("calls", 100), ("money", 2), ("all", 5)]
    );
    let named = |limit: &str, cost| VerifyRequest {
        secret: second.secret.clone(),
        cost: Some(cost),
        limit: limit.to_owned(),
        ..Default::default()
    };
    let answer = root.verify(named("calls", 40)).await.unwrap().into_inner();
    assert_eq!((answer.verdict(), remaining(&answer)), (VALID, vec![("calls", 60)]));
    assert_eq!(root.verify(named("none", 1)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(
        remaining(&spent(&mut root, &second.secret, 0).await),
        [("calls", 60), ("money", 2), ("all", 5)]
    );
}

#[tokio::test]
async fn only_a_valid_verdict_spends_and_a_successor_shares() {
    let replica = Replica::start().await;
    plan(&replica.installation.database, "free", &[("calls", "token", rate(10))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;
    let scoped = VerifyRequest {
        secret: token.secret.clone(),
        required_scopes: vec!["not:there".to_owned()],
        ..Default::default()
    };
    for _ in 0..3 {
        assert_eq!(root.verify(scoped.clone()).await.unwrap().into_inner().verdict(), Verdict::MissingScope);
    }
    assert_eq!(remaining(&spent(&mut root, &token.secret, 4).await), [("calls", 6)]);
    let successor = rotated(&mut root, rotation(&token.id)).await;
    assert_eq!(remaining(&spent(&mut root, &successor.secret, 2).await), [("calls", 4)], "no refill");
    let full = VerifyRequest {
        secret: successor.secret.clone(),
        consistency: Consistency::Full.into(),
        ..Default::default()
    };
    let answer = root.verify(full).await.unwrap().into_inner();
    assert_eq!((answer.verdict(), remaining(&answer)), (VALID, vec![("calls", 3)]), "an absent cost is 1");
    revoked(&mut root, &token.id, "test").await;
    assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), Verdict::Revoked);
}

#[tokio::test]
async fn a_change_of_the_plan_holds_after_a_lease_and_a_refill_admits_again() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    plan(database, "free", &[("calls", "token", rate(3))]).await;
    plan(
        database,
        "fast",
        &[("calls", "token", "'rate', 50, 1, 3, false, NULL, NULL, NULL, NULL".to_owned())],
    )
    .await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;
    assert_eq!(verdicts(&mut root, &token.secret, 4).await, [VALID, VALID, VALID, Verdict::RateLimited]);

    database
        .execute(
            "WITH plan AS (UPDATE plans SET revision = revision + 1 WHERE name = 'free' RETURNING plan_id)
             UPDATE plan_limits l SET burst = 5 FROM plan WHERE l.plan_id = plan.plan_id",
        )
        .await;
    eventually("the larger burst", async || {
        (spent(&mut root, &token.secret, 1).await.verdict() == VALID).then_some(())
    })
    .await;
    let request = UpdateTokenRequest {
        token_id: token.id.clone(),
        plan: "fast".to_owned(),
        update_mask: mask(&["plan"]),
        ..Default::default()
    };
    root.update_token(request).await.unwrap();
    let mut waits = 0;
    for _ in 0..20 {
        let answer = spent(&mut root, &token.secret, 1).await;
        if answer.verdict() == Verdict::RateLimited {
            waits += 1;
            let wait = answer.retry_after.unwrap();
            assert!(wait.seconds == 0 && wait.nanos > 0, "{wait:?}");
            tokio::time::sleep(Duration::from_nanos(wait.nanos.unsigned_abs().into())).await;
        }
    }
    assert!(waits > 0, "the other plan has a burst of 3");
}

#[tokio::test]
async fn a_replica_that_stops_returns_what_it_has_leased() {
    let replica = Replica::start().await;
    let installation = replica.installation.clone();
    plan(&installation.database, "paid", &[("money", "user", credits(10_000))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "paid").await;
    let mut valid = 0;
    for _ in 0..300 {
        valid += i64::from(spent(&mut root, &token.secret, 1).await.verdict() == VALID);
    }
    assert_eq!(valid, 300);
    replica.shut_down().outcome().await.unwrap();
    let after = installation.serve(installation.config()).await;
    assert_eq!(balance(&after).await, (9_700, 300, 0, 0));
}

#[tokio::test]
async fn replicas_never_exceed_a_limit_that_they_share() {
    let first = Replica::start().await;
    let installation = first.installation.clone();
    let others =
        [installation.serve(installation.config()).await, installation.serve(installation.config()).await];
    let limits = [("calls", "organization", rate(700)), ("money", "token", credits(500))];
    plan(&installation.database, "shared", &limits).await;
    let token = limited(&mut first.root(), "shared").await;
    let other = limited(&mut first.root(), "shared").await;
    let mut clients = tokio::task::JoinSet::new();
    for replica in [&first, &others[0], &others[1]] {
        for secret in [&token.secret, &other.secret] {
            for _ in 0..2 {
                let (mut client, secret) = (replica.root(), secret.clone());
                clients.spawn(async move {
                    let mut valid = 0;
                    for _ in 0..150 {
                        valid += i64::from(spent(&mut client, &secret, 1).await.verdict() == VALID);
                    }
                    valid
                });
            }
        }
    }
    let valid: i64 = clients.join_all().await.into_iter().sum();
    assert!(valid <= 700, "{valid}");
    // What was left of shares is returned within a lease; then the last of it can be spent.
    let mut root = first.root();
    let rest = eventually("all is spent", async || {
        let mut rest = 0;
        for secret in [&token.secret, &other.secret] {
            while spent(&mut root, secret, 1).await.verdict() == VALID {
                rest += 1;
            }
        }
        let sum = "SELECT (700 - sum(burst))::bigint FROM (SELECT ceil(greatest(full_time - extract(epoch FROM now()) * 1e9, 0)
                       / 2678400e9)::bigint AS burst FROM rate_allowances) a";
        (rest > 0 || installation.database.count(sum).await <= 0).then_some(rest)
    })
    .await;
    assert!(valid + rest <= 700, "{valid} and {rest}");
    let balanced = eventually("all leases are settled", async || {
        let (left, spent, leased, lost) = balance(&first).await;
        (leased == 0).then_some((left + spent, spent, lost))
    });
    let (total, counted, lost) = balanced.await;
    assert_eq!((total, lost), (1_000, 0));
    assert_eq!(counted, valid + rest, "debited = answered + returned");
}
