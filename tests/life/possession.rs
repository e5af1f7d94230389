//! The finder of a secret can end its token, and learns no more than that.

use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    Policy, RevokeTokenRequest, RotateTokenRequest, Token, TokenState, UpdatePolicyRequest, Verdict,
};
use tokend::secret::TokenId;
use tonic::Code;

use super::{got, seconds, verdict};
use crate::support::client::{created, created_with, forged, ordinary, rotated, rotation, unknown_id};
use crate::support::replica::{Replica, keyring, new_key};
use crate::support::status::{fields, refused};

fn found(secret: &str) -> RevokeTokenRequest {
    RevokeTokenRequest {
        target: Some(Target::Secret(secret.to_owned())),
        reason: "found in a public place".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn any_caller_may_revoke_the_token_whose_secret_it_has() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let finders = [("finder", &[][..]), ("finder", &["tokend:verify"]), ("acme", &["tokend:write"])];

    for (organization, scopes) in finders {
        for leaked in [&["repo:read"][..], &["tokend:write"], &["tokend:root"]] {
            let made = created_with(&mut root, "acme", leaked).await;
            let mut finder = replica.caller(organization, scopes).await;
            assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);

            let answer = finder.revoke_token(found(&made.secret)).await.unwrap().into_inner();

            assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Revoked);
            let token = got(&mut root, &made.token.unwrap().id).await;
            assert_eq!(token.revoke_reason, "found in a public place");
            assert!(answer.effective_time.is_some());
            let shown = Token {
                id: token.id,
                state: TokenState::Revoked.into(),
                revoke_time: token.revoke_time,
                ..Token::default()
            };
            assert_eq!(answer.token, Some(shown), "{organization} {scopes:?}: no more than that");
        }
    }
}

#[tokio::test]
async fn a_caller_that_may_read_the_token_gets_it_in_the_response() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    let made = created_with(&mut root, "acme", &["repo:read"]).await;
    let other = created_with(&mut root, "other", &["repo:read"]).await;

    let shown = reader.revoke_token(found(&made.secret)).await.unwrap().into_inner().token.unwrap();
    let hidden = reader.revoke_token(found(&other.secret)).await.unwrap().into_inner().token.unwrap();

    assert_eq!(shown, got(&mut root, &shown.id).await);
    assert_eq!((hidden.state(), &*hidden.user_id), (TokenState::Revoked, ""));
}

#[tokio::test]
async fn a_token_revokes_itself_and_the_tokens_rotated_from_it() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let old = created(&mut root, ordinary()).await;
    let id = old.token.unwrap().id;
    let graced = RotateTokenRequest { grace_period: seconds(3600), ..rotation(&id) };
    let new = rotated(&mut root, graced).await;
    let mut finder = replica.caller("finder", &[]).await;
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);

    // Within its grace period the old token is as good as the new one: its holder may have both.
    let answer = finder.revoke_token(found(&old.secret)).await.unwrap().into_inner();

    assert_eq!(answer.token.unwrap().id, id);
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Revoked);
    let own = created(&mut root, ordinary()).await;
    replica.client(&own.secret).revoke_token(found(&own.secret)).await.unwrap();
    assert_eq!(verdict(&mut root, &own.secret).await, Verdict::Revoked);
}

#[tokio::test]
async fn an_invalid_secret_revokes_no_valid_token() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut finder = replica.caller("finder", &[]).await;
    // One has expired, the other was revoked with `only_this`.
    for revoked in [false, true] {
        let old = created(&mut root, ordinary()).await;
        let id = old.token.unwrap().id;
        let new = rotated(&mut root, rotation(&id)).await;
        if revoked {
            root.revoke_token(RevokeTokenRequest { only_this: true, ..found(&old.secret) }).await.unwrap();
        }

        finder.revoke_token(found(&old.secret)).await.unwrap();

        assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid, "{revoked}");
        assert_eq!(got(&mut root, &id).await.state(), TokenState::Revoked);
        // A caller who may revoke it by its id still ends its successors.
        root.revoke_token(found(&old.secret)).await.unwrap();
        assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Revoked, "{revoked}");
    }
}

#[tokio::test]
async fn a_superseded_secret_revokes_its_family_if_the_policy_says_so() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let policy = Some(Policy { reuse_detection: true, ..Policy::default() });
    root.update_policy(UpdatePolicyRequest { policy, ..Default::default() }).await.unwrap();
    let old = created(&mut root, ordinary()).await;
    let new = rotated(&mut root, rotation(&old.token.unwrap().id)).await;
    let mut finder = replica.caller("finder", &[]).await;

    finder.revoke_token(found(&old.secret)).await.unwrap();

    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Revoked);
}

#[tokio::test]
async fn revoking_again_does_not_change_time_and_reason() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let first = root.revoke_token(found(&made.secret)).await.unwrap().into_inner().token;
    let again = RevokeTokenRequest { reason: "again".to_owned(), ..found(&made.secret) };

    let second = root.revoke_token(again).await.unwrap().into_inner().token;

    assert_eq!(second, first);
}

#[tokio::test]
async fn a_guess_revokes_nothing() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let known = TokenId::parse(&made.token.unwrap().id).unwrap();
    let mut finder = replica.caller("finder", &[]).await;

    for secret in [forged(known), forged(unknown_id())] {
        refused(finder.revoke_token(found(&secret)).await, Code::NotFound, "TOKEN_NOT_FOUND");
    }
    for text in ["", "tokd_", &made.secret[..75], &format!("{} ", made.secret)] {
        let outcome = finder.revoke_token(found(text)).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["secret"]);
        assert!(text.is_empty() || !status.message().contains(text), "the text in {status:?}");
    }
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);
}

#[tokio::test]
async fn a_secret_proves_its_token_even_if_the_keys_are_lost() {
    let replica = Replica::start().await;
    let made = created(&mut replica.root(), ordinary()).await;
    let known = TokenId::parse(&made.token.unwrap().id).unwrap();
    let mut config = replica.installation.config();
    config.keyring = keyring(&[&new_key()]);
    let other = replica.installation.serve(config).await;
    let mut finder = other.root();

    refused(finder.revoke_token(found(&forged(known))).await, Code::NotFound, "TOKEN_NOT_FOUND");
    finder.revoke_token(found(&made.secret)).await.unwrap();

    assert_eq!(verdict(&mut finder, &made.secret).await, Verdict::Revoked);
}
