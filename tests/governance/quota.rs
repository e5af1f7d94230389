//! The quota of active tokens per user: exact, however many requests are concurrent.

use tokend::api::proto::{
    CheckPolicyRequest, CreateTokenRequest, DisableTokenRequest, EnforcePolicyRequest, Policy,
    RotateTokenRequest, UpdateTokenRequest, update_token_request,
};

use super::policy::{forbidden, seconds, set};
use crate::support::client::{created, mask, ordinary, revoked, rotated, rotation, texts};
use crate::support::replica::Replica;

fn at_most(most: i32) -> Policy {
    Policy { most_active_tokens_per_user: most, ..Default::default() }
}

#[tokio::test]
async fn two_hundred_concurrent_creations_on_two_replicas_fill_exactly_the_quota() {
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    set(&mut replica.root(), at_most(7)).await;

    let all: Vec<_> = (0..200)
        .map(|number| {
            let mut root = if number % 2 == 0 { replica.root() } else { other.root() };
            tokio::spawn(async move {
                loop {
                    match root.create_token(ordinary()).await {
                        // A refused concurrent call does not tell whether the quota is used up.
                        Err(status) if status.code() != tonic::Code::FailedPrecondition => {}
                        outcome => return outcome,
                    }
                }
            })
        })
        .collect();
    let mut made = 0;
    for one in all {
        match one.await.unwrap() {
            Ok(_) => made += 1,
            refused => forbidden(refused, "most_active_tokens_per_user"),
        }
    }

    assert_eq!(made, 7);
    let count = "SELECT count(*) FROM tokens WHERE user_id = 'ada'";
    assert_eq!(replica.installation.database.count(count).await, 7);
}

#[tokio::test]
async fn concurrent_creations_and_rotations_never_exceed_the_quota() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set(&mut root, at_most(10)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&mut root, ordinary()).await.token.unwrap().id);
    }

    let creations: Vec<_> = (0..20)
        .map(|_| {
            let mut root = replica.root();
            tokio::spawn(async move { root.create_token(ordinary()).await.is_ok() })
        })
        .collect();
    let rotations: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let mut root = replica.root();
            let request = RotateTokenRequest { grace_period: Some(seconds(3600)), ..rotation(&id) };
            tokio::spawn(async move { rotated(&mut root, request).await })
        })
        .collect();
    for one in rotations {
        one.await.unwrap();
    }
    for one in creations {
        one.await.unwrap();
    }

    let counted = "SELECT count(*) FROM tokens t WHERE user_id = 'ada' AND expire_time IS NULL
        AND NOT EXISTS (SELECT FROM tokens s WHERE s.rotated_from = t.id)";
    assert_eq!(replica.installation.database.count(counted).await, 10);
}

#[tokio::test]
async fn ended_and_superseded_tokens_do_not_count_and_disabled_ones_do() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let first = created(&mut root, ordinary()).await.token.unwrap().id;
    let second = created(&mut root, ordinary()).await.token.unwrap().id;
    set(&mut root, at_most(2)).await;

    root.disable_token(DisableTokenRequest { token_id: second.clone(), ..Default::default() }).await.unwrap();
    forbidden(root.create_token(ordinary()).await, "most_active_tokens_per_user");
    let graced = RotateTokenRequest { grace_period: Some(seconds(3600)), ..rotation(&first) };
    rotated(&mut root, graced).await;
    forbidden(root.create_token(ordinary()).await, "most_active_tokens_per_user");
    revoked(&mut root, &second, "").await;
    let third = created(&mut root, ordinary()).await.token.unwrap().id;
    forbidden(root.create_token(ordinary()).await, "most_active_tokens_per_user");
    created(&mut root, CreateTokenRequest { user_id: "bob".to_owned(), ..ordinary() }).await;
    let root_token = CreateTokenRequest { scopes: texts(&["tokend:root"]), ..ordinary() };
    created(&mut root, root_token).await;

    set(&mut root, at_most(1)).await;
    rotated(&mut root, rotation(&third)).await;
}

#[tokio::test]
async fn a_superseded_token_is_accepted_at_most_for_the_longest_grace() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set(&mut root, at_most(1)).await;
    let old = created(&mut root, ordinary()).await.token.unwrap().id;
    let graced = RotateTokenRequest { grace_period: Some(seconds(3600)), ..rotation(&old) };
    rotated(&mut root, graced).await;

    let eternal = UpdateTokenRequest {
        token_id: old,
        expiration: Some(update_token_request::Expiration::NoExpiration(true)),
        update_mask: mask(&["expiration"]),
        ..Default::default()
    };
    forbidden(root.update_token(eternal).await, "longest_grace");
}

#[tokio::test]
async fn a_root_token_that_becomes_an_ordinary_one_counts_for_the_quota() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set(&mut root, at_most(1)).await;
    let first = created(&mut root, ordinary()).await.token.unwrap().id;
    let root_token = CreateTokenRequest { scopes: texts(&["tokend:root"]), ..ordinary() };
    let second = created(&mut root, root_token).await.token.unwrap().id;
    let lowering = UpdateTokenRequest {
        token_id: second,
        scopes: texts(&["repo:a"]),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    };

    forbidden(root.update_token(lowering.clone()).await, "most_active_tokens_per_user");

    revoked(&mut root, &first, "").await;
    root.update_token(lowering).await.unwrap();
}

#[tokio::test]
async fn a_superseded_token_counts_again_when_its_successor_has_ended() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set(&mut root, at_most(1)).await;
    let old = created(&mut root, ordinary()).await.token.unwrap().id;
    let graced = RotateTokenRequest { grace_period: Some(seconds(3600)), ..rotation(&old) };
    let new = rotated(&mut root, graced).await.token.unwrap().id;

    revoked(&mut root, &new, "").await;
    forbidden(root.create_token(ordinary()).await, "most_active_tokens_per_user");
    set(&mut root, at_most(2)).await;
    created(&mut root, ordinary()).await;
    forbidden(root.create_token(ordinary()).await, "most_active_tokens_per_user");

    set(&mut root, at_most(1)).await;
    let found = root.check_policy(CheckPolicyRequest::default()).await.unwrap().into_inner().breaches;
    let found: Vec<_> = found.into_iter().map(|breach| (breach.token.unwrap().id, breach.revoked)).collect();
    assert_eq!(found, [(old.clone(), true)]);
    let done = root.enforce_policy(EnforcePolicyRequest::default()).await.unwrap().into_inner().breaches;
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].token.as_ref().unwrap().id, old);
}
