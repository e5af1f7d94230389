//! Policies: who sets them, and what they restrict.

use prost_types::Duration;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, GetPolicyRequest, Policy, RotateTokenRequest,
    UpdatePolicyRequest, UpdateTokenRequest, update_token_request,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::client::{
    Client, created, created_with, mask, ordinary, renaming, rotated, rotation, texts,
};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const DAY: i64 = 86_400;

/// Returns that many seconds.
pub(crate) fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// Sets the default organization's policy, which must succeed.
pub(crate) async fn set(root: &mut Client, policy: Policy) {
    let request = UpdatePolicyRequest { organization_id: String::new(), policy: Some(policy) };
    root.update_policy(request).await.unwrap();
}

/// Checks that a policy forbids a call by this rule.
#[track_caller]
pub(crate) fn forbidden<T>(outcome: Result<Response<T>, Status>, rule: &str) {
    let status = refused(outcome, Code::FailedPrecondition, "POLICY_FORBIDS");
    assert_eq!(status.get_details_error_info().unwrap().metadata["rule"], rule);
}

fn lasting(days: i64) -> CreateTokenRequest {
    CreateTokenRequest { expiration: Some(Expiration::Ttl(seconds(days * DAY))), ..ordinary() }
}

fn scoped(scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { scopes: texts(scopes), ..ordinary() }
}

fn id(made: CreateTokenResponse) -> String {
    made.token.unwrap().id
}

fn extending(id: &str, days: i64) -> UpdateTokenRequest {
    UpdateTokenRequest {
        token_id: id.to_owned(),
        expiration: Some(update_token_request::Expiration::Ttl(seconds(days * DAY))),
        update_mask: mask(&["expiration"]),
        ..Default::default()
    }
}

fn rescoping(id: &str, scopes: &[&str]) -> UpdateTokenRequest {
    UpdateTokenRequest {
        token_id: id.to_owned(),
        scopes: texts(scopes),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_policy_allows_everything_until_root_sets_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read", "tokend:write"]).await;
    let get = GetPolicyRequest::default();
    let stored = reader.get_policy(get.clone()).await.unwrap().into_inner();
    assert_eq!((&*stored.organization_id, stored.policy), ("acme", Some(Policy::default())));
    assert_eq!((&*stored.updated_by, stored.update_time), ("", None));
    let policy = Policy {
        longest_lifetime: Some(seconds(DAY)),
        expiration_required: true,
        longest_grace: Some(seconds(0)),
        most_active_tokens_per_user: 3,
        allowed_scopes: texts(&["repo:*", "tokend:read"]),
        reuse_detection: true,
        plan_required: true,
        default_plan: String::new(),
    };

    let request = |policy| UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(policy) };
    let outcome = reader.update_policy(request(policy.clone())).await;
    refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
    root.update_policy(request(policy.clone())).await.unwrap();

    let stored = reader.get_policy(get.clone()).await.unwrap().into_inner();
    assert_eq!(stored.policy, Some(policy));
    assert_eq!(stored.updated_by, replica.installation.root_secret[5..27]);
    assert!(stored.update_time.is_some());
    root.update_policy(request(Policy::default())).await.unwrap();
    let stored = reader.get_policy(get).await.unwrap().into_inner();
    assert_eq!(stored.policy, Some(Policy::default()));
}

#[tokio::test]
async fn a_policy_out_of_bounds_is_refused_with_every_violation() {
    let replica = Replica::start().await;
    let policy = Policy {
        longest_lifetime: Some(Duration { seconds: 1, nanos: 1 }),
        longest_grace: Some(seconds(31 * DAY)),
        most_active_tokens_per_user: -1,
        allowed_scopes: texts(&["tokend:*"]),
        ..Policy::default()
    };

    for (policy, wrong) in [
        (None, &["policy"][..]),
        (
            Some(policy),
            &[
                "policy.longest_lifetime",
                "policy.longest_grace",
                "policy.most_active_tokens_per_user",
                "policy.allowed_scopes[0]",
            ],
        ),
    ] {
        let request = UpdatePolicyRequest { policy, ..Default::default() };
        let outcome = replica.root().update_policy(request).await;
        assert_eq!(fields(&refused(outcome, Code::InvalidArgument, "INVALID_FIELD")), wrong);
    }
}

#[tokio::test]
async fn a_lifetime_is_limited_when_it_is_chosen_and_existing_ones_stay() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let eternal = id(created(&mut root, ordinary()).await);
    let lifetime = Some(seconds(7 * DAY));
    set(&mut root, Policy { longest_lifetime: lifetime, expiration_required: true, ..Default::default() })
        .await;

    forbidden(root.create_token(ordinary()).await, "expiration_required");
    forbidden(root.create_token(lasting(8)).await, "longest_lifetime");
    let short = id(created(&mut root, lasting(7)).await);
    forbidden(root.update_token(extending(&short, 8)).await, "longest_lifetime");
    root.update_token(extending(&short, 6)).await.unwrap();
    forbidden(root.rotate_token(rotation(&eternal)).await, "expiration_required");
    root.update_token(renaming(&eternal)).await.unwrap();
    root.update_token(extending(&eternal, 6)).await.unwrap();
    rotated(&mut root, rotation(&eternal)).await;
    created_with(&mut root, "other", &[]).await;
    created(&mut root, scoped(&["tokend:root"])).await;
}

#[tokio::test]
async fn a_scope_is_limited_when_it_is_granted() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let before = id(created(&mut root, scoped(&["user:a"])).await);
    set(&mut root, Policy { allowed_scopes: texts(&["repo:*"]), ..Default::default() }).await;

    forbidden(root.create_token(scoped(&["repo:a", "user:a"])).await, "allowed_scopes");
    forbidden(root.create_token(scoped(&["tokend:read"])).await, "allowed_scopes");
    forbidden(root.rotate_token(rotation(&before)).await, "allowed_scopes");
    let made = id(created(&mut root, scoped(&["repo:a", "repo:b:*"])).await);
    forbidden(root.update_token(rescoping(&made, &["repo"])).await, "allowed_scopes");
    root.update_token(rescoping(&before, &["repo:a"])).await.unwrap();
    rotated(&mut root, rotation(&before)).await;
}

#[tokio::test]
async fn a_grace_is_limited_and_cannot_be_extended_later() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let old = id(created(&mut root, ordinary()).await);
    set(&mut root, Policy { longest_grace: Some(seconds(3600)), ..Default::default() }).await;
    let graced = |grace| RotateTokenRequest { grace_period: Some(seconds(grace)), ..rotation(&old) };

    forbidden(root.rotate_token(graced(3601)).await, "longest_grace");
    rotated(&mut root, graced(3600)).await;
    forbidden(root.update_token(extending(&old, 1)).await, "longest_grace");
}
