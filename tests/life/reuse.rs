//! A superseded token that rotates itself after its grace period: if the policy says so, its family
//! is revoked.

use tokend::api::proto::{
    CreateTokenResponse, ListTokenEventsRequest, ListTokensRequest, Policy, RotateTokenRequest,
    RotateTokenResponse, TokenEventKind, UpdatePolicyRequest, Verdict,
};
use tokend::secret::TokenId;
use tonic::Code;

use super::{got, seconds, verdict};
use crate::support::client::{
    Client, created, created_with, forged, new_request_id, ordinary, rotated, rotation,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

fn by_itself(id: &str) -> RotateTokenRequest {
    RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(id) }
}

async fn watchful(root: &mut Client) {
    let policy = Some(Policy { reuse_detection: true, ..Policy::default() });
    root.update_policy(UpdatePolicyRequest { policy, ..Default::default() }).await.unwrap();
}

fn id(made: &CreateTokenResponse) -> String {
    made.token.as_ref().unwrap().id.clone()
}

fn successor(made: &RotateTokenResponse) -> String {
    made.token.as_ref().unwrap().id.clone()
}

/// Ends a token's grace period in SQL, and waits until the replica knows.
async fn let_expire(replica: &Replica, made: &CreateTokenResponse) {
    let expire =
        "UPDATE tokens SET expire_time = now() WHERE expire_time IS NOT NULL AND revoke_time IS NULL";
    replica.installation.database.execute(expire).await;
    while verdict(&mut replica.root(), &made.secret).await != Verdict::Expired {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_superseded_token_that_rotates_itself_revokes_its_family() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    watchful(&mut root).await;
    let first = created(&mut root, ordinary()).await;
    let graced = RotateTokenRequest { grace_period: seconds(3600), ..rotation(&id(&first)) };
    let second = rotated(&mut root, graced).await;
    let third = rotated(&mut root, rotation(&successor(&second))).await;
    let fourth = rotated(&mut root, rotation(&successor(&third))).await;
    let bystander = created(&mut root, ordinary()).await;
    for secret in [&first.secret, &fourth.secret] {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Valid);
    }

    let mut thief = replica.client(&second.secret);
    let outcome = thief.rotate_token(by_itself(&successor(&second))).await;

    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    for secret in [&first.secret, &second.secret, &third.secret, &fourth.secret] {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Revoked);
    }
    assert_eq!(verdict(&mut root, &bystander.secret).await, Verdict::Valid);
    let token = got(&mut root, &successor(&fourth)).await;
    assert_eq!(token.revoke_reason, "reuse of a superseded token");
    let request = ListTokenEventsRequest { token_id: token.id, page_size: 1, ..Default::default() };
    let event = root.list_token_events(request).await.unwrap().into_inner().events.remove(0);
    assert_eq!((event.kind(), event.actor), (TokenEventKind::Revoked, successor(&second)));
    assert!(!event.trace_id.is_empty());
    let outcome = thief.rotate_token(by_itself(&successor(&second))).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn a_retry_of_an_answered_rotation_is_not_reuse() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    watchful(&mut root).await;
    let old = created(&mut root, ordinary()).await;
    let request = by_itself(&id(&old));
    let new = rotated(&mut replica.client(&old.secret), request.clone()).await;
    let_expire(&replica, &old).await;

    let outcome = replica.client(&old.secret).rotate_token(request.clone()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);

    let other = RotateTokenRequest { request_id: new_request_id(), ..request };
    let outcome = replica.client(&old.secret).rotate_token(other).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Revoked);
}

#[tokio::test]
async fn reuse_revokes_nothing_without_the_policy() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let old = created(&mut root, ordinary()).await;
    let new = rotated(&mut root, rotation(&id(&old))).await;
    assert_eq!(verdict(&mut root, &old.secret).await, Verdict::Expired);

    let outcome = replica.client(&old.secret).rotate_token(by_itself(&id(&old))).await;

    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);
}

#[tokio::test]
async fn a_token_within_its_grace_only_learns_its_successor() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    watchful(&mut root).await;
    let old = created(&mut root, ordinary()).await;
    let mut itself = replica.client(&old.secret);
    let new = rotated(&mut itself, by_itself(&id(&old))).await;

    let outcome = itself.rotate_token(by_itself(&id(&old))).await;

    refused(outcome, Code::FailedPrecondition, "TOKEN_ROTATED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);
}

#[tokio::test]
async fn only_a_superseded_token_that_rotates_itself_counts_as_reuse() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    watchful(&mut root).await;
    let old = created(&mut root, ordinary()).await;
    let new = rotated(&mut root, rotation(&id(&old))).await;
    let other = created(&mut root, ordinary()).await;
    let other_new = rotated(&mut root, rotation(&id(&other))).await;
    let alone = created(&mut root, ordinary()).await;
    replica
        .installation
        .database
        .execute("UPDATE tokens SET expire_time = now() WHERE expire_time IS NULL AND rotated_from IS NULL AND user_id = 'ada'")
        .await;
    while verdict(&mut root, &alone.secret).await != Verdict::Expired {
        tokio::task::yield_now().await;
    }

    let mut holder = replica.client(&old.secret);
    let outcome = holder.rotate_token(by_itself(&id(&other))).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    let outcome = holder.list_tokens(ListTokensRequest::default()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    let guess = forged(TokenId::parse(&id(&old)).unwrap());
    let outcome = replica.client(&guess).rotate_token(by_itself(&id(&old))).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let outcome = replica.client(&alone.secret).rotate_token(by_itself(&id(&alone))).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    root.rotate_token(by_itself(&id(&old))).await.unwrap_err();

    for secret in [&new.secret, &other_new.secret] {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Valid);
    }
    assert_eq!(verdict(&mut root, &alone.secret).await, Verdict::Expired);
}

#[tokio::test]
async fn no_policy_applies_to_a_root_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    watchful(&mut root).await;
    let old = created_with(&mut root, "", &["tokend:root"]).await;
    let new = rotated(&mut root, rotation(&id(&old))).await;
    assert_eq!(verdict(&mut root, &old.secret).await, Verdict::Expired);

    let outcome = replica.client(&old.secret).rotate_token(by_itself(&id(&old))).await;

    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);
}
