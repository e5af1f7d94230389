//! Rotating a token by another caller: what the successor inherits, when the old token ends, and
//! that there is at most one successor.

use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::rotate_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, GetTokenRequest, Policy, RevokeTokenRequest, RotateTokenRequest,
    RotateTokenResponse, Token, TokenState, UpdatePolicyRequest, Verdict,
};
use tonic::Code;

use super::{got, metadata, seconds, verdict};
use crate::support::client::{
    created, created_with, nanos, new_request_id, ordinary, revocation, revoked, rotated, rotation, second,
    texts, unknown_id,
};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const YEAR_3000: i64 = 32_503_680_000;
const DAY: i64 = 86_400;

fn full() -> CreateTokenRequest {
    use tokend::api::proto::create_token_request::Expiration;
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        scopes: texts(&["repo:read", "repo:*"]),
        labels: [("team".to_owned(), "tools".to_owned())].into(),
        allowed_cidrs: texts(&["10.0.0.0/8", "127.0.0.0/8"]),
        expiration: Some(Expiration::ExpireTime(second(YEAR_3000))),
        ..ordinary()
    }
}

#[tokio::test]
async fn a_successor_inherits_everything_but_its_secret() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let old = created(&mut root, full()).await;
    let before = old.token.unwrap();

    let new = rotated(&mut root, rotation(&before.id)).await;

    let token = new.token.unwrap();
    let expected = Token {
        id: token.id.clone(),
        create_time: token.create_time,
        rotated_from: before.id.clone(),
        family_id: before.id.clone(),
        ..before.clone()
    };
    assert_eq!(token, expected);
    assert_ne!(token.id, before.id);
    assert_ne!(new.secret, old.secret);
    assert_eq!((&new.secret[..5], &new.secret[5..27]), ("tokd_", &*token.id));
    assert_eq!(got(&mut root, &token.id).await, token);
    let ended = got(&mut root, &before.id).await;
    assert_eq!(ended.expire_time, token.create_time, "at once, without a grace");
    assert_eq!(ended.superseded_by, token.id);
    let superseded_by = String::new();
    let as_before = Token { expire_time: before.expire_time, state: before.state, superseded_by, ..ended };
    assert_eq!(as_before, before);
    assert_eq!(verdict(&mut root, &old.secret).await, Verdict::Expired);
    let answer = root.verify(crate::support::client::question(&new.secret, &["repo:x"])).await.unwrap();
    assert_eq!(answer.into_inner().token.unwrap(), token);
}

#[tokio::test]
async fn the_old_token_is_valid_for_the_grace_and_never_longer_than_before() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let graceful = async |client: &mut _, request, grace| {
        let old = created(client, request).await;
        let id = old.token.as_ref().unwrap().id.clone();
        let request = RotateTokenRequest { grace_period: seconds(grace), ..rotation(&id) };
        let new = rotated(client, request).await.token.unwrap();
        let after = got(client, &id).await;
        (old, after, new)
    };

    let (old, after, new) = graceful(&mut root, ordinary(), 30 * DAY).await;
    let lives = nanos(after.expire_time.as_ref()) - nanos(new.create_time.as_ref());
    assert_eq!(lives, i128::from(30 * DAY) * 1_000_000_000);
    assert_eq!((after.state(), new.expire_time), (TokenState::Active, None));
    assert_eq!(verdict(&mut root, &old.secret).await, Verdict::Valid);

    let soon = tokend::api::proto::create_token_request::Expiration::Ttl(seconds(60).unwrap());
    let mortal = CreateTokenRequest { expiration: Some(soon), ..ordinary() };
    let (old, after, new) = graceful(&mut root, mortal, DAY).await;
    let before = old.token.unwrap();
    assert_eq!((after.expire_time, new.expire_time), (before.expire_time, before.expire_time));
}

#[tokio::test]
async fn the_expiration_of_a_successor_may_be_chosen() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let chosen = |id: &str, expiration| RotateTokenRequest { expiration: Some(expiration), ..rotation(id) };

    let first = rotated(&mut root, chosen(&id, Expiration::ExpireTime(second(YEAR_3000)))).await;
    let first = first.token.unwrap();
    let second_one =
        rotated(&mut root, chosen(&first.id, Expiration::NoExpiration(true))).await.token.unwrap();
    let third = rotated(&mut root, chosen(&second_one.id, Expiration::Ttl(seconds(60).unwrap()))).await;

    assert_eq!(first.expire_time, Some(second(YEAR_3000)));
    assert_eq!((second_one.expire_time, &second_one.rotated_from), (None, &first.id));
    let third = third.token.unwrap();
    let lives = nanos(third.expire_time.as_ref()) - nanos(third.create_time.as_ref());
    assert_eq!(lives, 60_000_000_000);
}

#[tokio::test]
async fn the_family_of_a_token_stays_the_same_in_all_rotations_and_without_its_first_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let first = created(&mut root, ordinary()).await.token.unwrap();
    assert_eq!(first.family_id, "");
    let mut last = first.id.clone();
    for number in 1..=3 {
        let new = rotated(&mut root, rotation(&last)).await;
        last = new.token.unwrap().id;
        assert_eq!(got(&mut root, &last).await.family_id, first.id, "rotation {number}");
        let answer = root.verify(crate::support::client::question(&new.secret, &[])).await.unwrap();
        assert_eq!(answer.into_inner().token.unwrap().family_id, first.id, "rotation {number}");
    }
    assert_eq!(got(&mut root, &first.id).await.family_id, "", "its own");

    let delete = "DELETE FROM tokens WHERE family_id = id";
    assert_eq!(replica.installation.database.execute(delete).await, 1);
    let next = rotated(&mut root, rotation(&last)).await.token.unwrap();
    assert_eq!(next.family_id, first.id);
}

#[tokio::test]
async fn a_token_rotates_once_and_the_refusal_names_its_successor() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let request = || RotateTokenRequest { grace_period: seconds(DAY), ..rotation(&id) };
    let successor = rotated(&mut root, request()).await.token.unwrap().id;

    for again in [request(), rotation(&id)] {
        let status = refused(root.rotate_token(again).await, Code::FailedPrecondition, "TOKEN_ROTATED");
        assert_eq!(metadata(&status, "successor"), successor);
    }
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM tokens").await, 3);
    revoked(&mut root, &id, "").await;
    let status = refused(root.rotate_token(request()).await, Code::FailedPrecondition, "TOKEN_REVOKED");
    assert!(!status.message().is_empty());
}

#[tokio::test]
async fn one_of_concurrent_rotations_wins_and_the_others_name_its_successor() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;

    let all: Vec<_> = (0..8)
        .map(|_| {
            let (mut root, id) = (root.clone(), id.clone());
            tokio::spawn(async move { root.rotate_token(rotation(&id)).await })
        })
        .collect();
    let (mut won, mut named) = (Vec::new(), Vec::new());
    for one in all {
        match one.await.unwrap() {
            Ok(answer) => won.push(answer.into_inner().token.unwrap().id),
            lost => {
                named.push(metadata(&refused(lost, Code::FailedPrecondition, "TOKEN_ROTATED"), "successor"));
            }
        }
    }

    assert_eq!((won.len(), named.len()), (1, 7));
    assert!(named.iter().all(|successor| *successor == won[0]));
}

#[tokio::test]
async fn an_expired_or_revoked_token_is_not_rotated() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let expired = created(&mut root, ordinary()).await.token.unwrap().id;
    let expire = "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'ada'";
    replica.installation.database.execute(expire).await;
    let ended = created(&mut root, ordinary()).await.token.unwrap().id;
    revoked(&mut root, &ended, "").await;

    refused(root.rotate_token(rotation(&expired)).await, Code::FailedPrecondition, "TOKEN_EXPIRED");
    refused(root.rotate_token(rotation(&ended)).await, Code::FailedPrecondition, "TOKEN_REVOKED");
    let unknown = rotation(&unknown_id().to_string());
    refused(root.rotate_token(unknown).await, Code::NotFound, "TOKEN_NOT_FOUND");
}

#[tokio::test]
async fn fields_of_a_rotation_keep_their_limits() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let grace = |seconds, nanos| RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds, nanos }),
        ..rotation(&id)
    };
    let with_id = |text: &str| RotateTokenRequest { request_id: text.to_owned(), ..rotation(&id) };

    for (request, field) in [
        (rotation(""), "token_id"),
        (grace(-1, 0), "grace_period"),
        (grace(0, -1), "grace_period"),
        (grace(30 * DAY, 1), "grace_period"),
        (grace(i64::MAX, 0), "grace_period"),
        (with_id("x"), "request_id"),
        (with_id("0352b3a4-1111-1111-8111-111111111111"), "request_id"),
        (
            RotateTokenRequest { expiration: Some(Expiration::NoExpiration(false)), ..rotation(&id) },
            "no_expiration",
        ),
        (
            RotateTokenRequest { expiration: Some(Expiration::ExpireTime(second(0))), ..rotation(&id) },
            "expire_time",
        ),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.rotate_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{shown}");
    }
}

#[tokio::test]
async fn a_caller_rotates_no_token_that_it_may_not_manage() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mortal = CreateTokenRequest {
        scopes: texts(&["tokend:write", "tokend:read"]),
        organization_id: "acme".to_owned(),
        ..full()
    };
    let mut writer = replica.client(&created(&mut root, mortal.clone()).await.secret);
    let eternal = created_with(&mut root, "acme", &["tokend:read"]).await.token.unwrap().id;
    let verifier = created_with(&mut root, "acme", &["tokend:verify"]).await.token.unwrap().id;
    let everywhere =
        CreateTokenRequest { allowed_cidrs: vec![], scopes: texts(&["tokend:read"]), ..mortal.clone() };
    let everywhere = created(&mut root, everywhere).await.token.unwrap().id;
    let equal = created(&mut root, mortal).await.token.unwrap().id;
    let ordinary = created_with(&mut root, "acme", &["a:b"]).await.token.unwrap().id;

    for id in [&eternal, &verifier, &everywhere] {
        refused(writer.rotate_token(rotation(id)).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
    let longer = RotateTokenRequest { expiration: Some(Expiration::NoExpiration(true)), ..rotation(&equal) };
    refused(writer.rotate_token(longer).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    rotated(&mut writer, rotation(&equal)).await;
    assert_eq!(rotated(&mut writer, rotation(&ordinary)).await.token.unwrap().expire_time, None);
}

#[tokio::test]
async fn revoking_a_token_revokes_its_successors_unless_only_it_is_meant() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut line = vec![created(&mut root, ordinary()).await.token.unwrap().id];
    let mut secrets = Vec::new();
    for _ in 0..3 {
        let last = line.last().unwrap();
        let request = RotateTokenRequest { grace_period: seconds(DAY), ..rotation(last) };
        let new = rotated(&mut root, request).await;
        line.push(new.token.unwrap().id);
        secrets.push(new.secret);
    }
    for secret in &secrets {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Valid);
    }

    let mut alone = revocation(&line[2], "only this");
    alone.only_this = true;
    root.revoke_token(alone).await.unwrap();
    assert_eq!(verdict(&mut root, &secrets[1]).await, Verdict::Revoked);
    assert_eq!(verdict(&mut root, &secrets[2]).await, Verdict::Valid, "what came after it");
    let answer = revoked(&mut root, &line[1], "stolen").await.token.unwrap();

    assert_eq!((answer.id, &*answer.revoke_reason), (line[1].clone(), "stolen"));
    for secret in &secrets {
        assert_eq!(verdict(&mut root, secret).await, Verdict::Revoked, "at once, from the cache too");
    }
    let reasons = [got(&mut root, &line[2]).await, got(&mut root, &line[3]).await];
    assert_eq!(reasons.map(|token| token.revoke_reason), ["only this", "stolen"], "the first stays");
    assert_eq!(got(&mut root, &line[0]).await.state(), TokenState::Active, "what came before it");
    let events = "SELECT count(*) FROM token_events WHERE kind = 'revoked'";
    assert_eq!(replica.installation.database.count(events).await, 3);
}

#[tokio::test]
async fn a_family_with_a_privileged_token_needs_permission_for_that_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut writer = replica.caller("acme", &["tokend:write"]).await;
    let old = created_with(&mut root, "acme", &["a:b"]).await;
    let id = old.token.unwrap().id;
    let new = rotated(&mut root, rotation(&id)).await;
    let promote = "UPDATE tokens SET scopes = '{tokend:read}' WHERE rotated_from IS NOT NULL";
    replica.installation.database.execute(promote).await;

    refused(writer.revoke_token(revocation(&id, "")).await, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(got(&mut root, &id).await.revoke_time, None, "nothing was revoked");

    let mut alone = revocation(&id, "");
    alone.only_this = true;
    writer.revoke_token(alone).await.unwrap();
    assert_eq!(verdict(&mut root, &new.secret).await, Verdict::Valid);
}

#[tokio::test]
async fn no_token_survives_a_concurrent_rotation_and_revocation() {
    let replica = Replica::start().await;
    let mut root = replica.root();

    for _ in 0..20 {
        let id = created(&mut root, ordinary()).await.token.unwrap().id;
        let (mut first, mut second) = (root.clone(), root.clone());
        let (rotated, revoked) =
            tokio::join!(first.rotate_token(rotation(&id)), second.revoke_token(revocation(&id, "")));
        revoked.unwrap();
        match rotated {
            Ok(new) => {
                let secret = new.into_inner().secret;
                assert_eq!(verdict(&mut root, &secret).await, Verdict::Revoked);
            }
            lost => drop(refused(lost, Code::FailedPrecondition, "TOKEN_REVOKED")),
        }
    }
    let alive = "SELECT count(*) FROM tokens WHERE revoke_time IS NULL";
    assert_eq!(replica.installation.database.count(alive).await, 1, "root alone");
}

/// Creates three generations, of which retention has deleted the second; the first is within its
/// grace period.
async fn without_the_second(replica: &Replica) -> (CreateTokenResponse, RotateTokenResponse) {
    let mut root = replica.root();
    let first = created(&mut root, ordinary()).await;
    let graced =
        RotateTokenRequest { grace_period: seconds(3600), ..rotation(&first.token.as_ref().unwrap().id) };
    let second = rotated(&mut root, graced).await.token.unwrap().id;
    let third = rotated(&mut root, rotation(&second)).await;
    let ended = "UPDATE tokens SET create_time = create_time - interval '401 days',
        expire_time = now() - interval '401 days'
        WHERE rotated_from IS NOT NULL AND expire_time IS NOT NULL";
    assert_eq!(replica.installation.database.execute(ended).await, 1);
    eventually("the second one is purged", async || {
        let outcome = root.get_token(GetTokenRequest { token_id: second.clone() }).await;
        outcome.is_err_and(|status| status.code() == Code::NotFound).then_some(())
    })
    .await;
    (first, third)
}

#[tokio::test]
async fn revoking_a_token_revokes_its_successors_even_if_one_between_was_deleted() {
    let replica = Replica::with_frequent_retention().await;
    let mut root = replica.root();
    for by_secret in [false, true] {
        let (first, third) = without_the_second(&replica).await;
        assert_eq!(verdict(&mut root, &third.secret).await, Verdict::Valid);
        let id = first.token.unwrap().id;
        let target = if by_secret { Target::Secret(first.secret.clone()) } else { Target::TokenId(id) };
        let request = RevokeTokenRequest { target: Some(target), ..Default::default() };
        root.revoke_token(request).await.unwrap();
        for secret in [&first.secret, &third.secret] {
            assert_eq!(verdict(&mut root, secret).await, Verdict::Revoked);
        }
    }
}

#[tokio::test]
async fn a_token_with_a_deleted_successor_does_not_rotate_and_its_reuse_is_detected() {
    let replica = Replica::with_frequent_retention().await;
    let mut root = replica.root();
    let policy = Some(Policy { reuse_detection: true, ..Policy::default() });
    root.update_policy(UpdatePolicyRequest { policy, ..Default::default() }).await.unwrap();
    let (first, third) = without_the_second(&replica).await;
    let id = first.token.unwrap().id;

    refused(root.rotate_token(rotation(&id)).await, Code::FailedPrecondition, "TOKEN_ROTATED");

    let over = "UPDATE tokens SET expire_time = now() WHERE expire_time > now() AND revoke_time IS NULL";
    replica.installation.database.execute(over).await;
    eventually("its grace is over", async || {
        (verdict(&mut root, &first.secret).await == Verdict::Expired).then_some(())
    })
    .await;
    let again =
        RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(&id) };
    let outcome = replica.client(&first.secret).rotate_token(again).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    assert_eq!(verdict(&mut root, &third.secret).await, Verdict::Revoked);
}
