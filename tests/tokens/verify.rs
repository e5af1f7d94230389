//! Verify: every verdict, which one takes precedence, and the rest of the response.

use prost_types::Duration;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, Verdict, VerifyResponse};
use tokend::secret::TokenId;

use crate::support::client::{created, created_with, forged, nanos, ordinary, revoked, unknown_id, verified};
use crate::support::eventually;
use crate::support::replica::Replica;

const EXPIRE_ALL: &str =
    "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'ada'";

/// Checks that a response has nothing but the verdict.
#[track_caller]
fn bare(answer: &VerifyResponse, verdict: Verdict) {
    assert_eq!(answer.verdict(), verdict);
    assert_eq!(answer.token, None);
    assert_eq!(answer.missing_scopes, [""; 0]);
    assert!(nanos(answer.as_of_time.as_ref()) > 0);
}

#[tokio::test]
async fn an_active_token_is_valid_and_shown() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["repo:read"]).await;

    let answer = verified(&mut root, &made.secret, &["repo:read"]).await;

    assert_eq!(answer.verdict(), Verdict::Valid);
    assert_eq!(answer.token, made.token);
    assert_eq!(answer.missing_scopes, [""; 0]);
    assert!(nanos(answer.as_of_time.as_ref()) > 0);
}

#[tokio::test]
async fn the_first_verdict_in_order_is_returned() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let lacking = created(&mut root, ordinary()).await;
    let expired = created(&mut root, ordinary()).await;
    let revoked_too = created(&mut root, ordinary()).await;
    revoked(&mut root, &revoked_too.token.as_ref().unwrap().id, "").await;

    let answer = verified(&mut root, &lacking.secret, &["b", "a"]).await;
    assert_eq!((answer.verdict(), answer.token), (Verdict::MissingScope, lacking.token));
    assert_eq!(answer.missing_scopes, ["b", "a"], "in the order asked for");

    replica.installation.database.execute(EXPIRE_ALL).await;
    for (made, verdict) in [(expired, Verdict::Expired), (revoked_too, Verdict::Revoked)] {
        let answer = eventually("the change shows", async || {
            let answer = verified(&mut root, &made.secret, &["a"]).await;
            answer.token.as_ref().is_some_and(|token| token.expire_time.is_some()).then_some(answer)
        })
        .await;
        assert_eq!(answer.verdict(), verdict);
        assert_eq!(answer.missing_scopes, [""; 0]);
        assert_eq!(answer.token.unwrap().id, made.token.unwrap().id);
    }
}

#[tokio::test]
async fn a_token_expires_at_its_expire_time() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let half_a_second = Duration { seconds: 0, nanos: 500_000_000 };
    let request = CreateTokenRequest { expiration: Some(Expiration::Ttl(half_a_second)), ..ordinary() };
    let made = created(&mut root, request).await;
    let end = nanos(made.token.unwrap().expire_time.as_ref());

    let answer = eventually("the token expires", async || {
        let answer = verified(&mut root, &made.secret, &[]).await;
        if answer.verdict() == Verdict::Valid {
            assert!(nanos(answer.as_of_time.as_ref()) < end, "valid at or after its end");
            return None;
        }
        Some(answer)
    })
    .await;

    assert_eq!(answer.verdict(), Verdict::Expired);
    assert_eq!(nanos(answer.token.unwrap().expire_time.as_ref()), end);
}

#[tokio::test]
async fn a_wildcard_covers_the_scopes_below_it_and_no_reserved_one() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "", &["repo:*", "org:acme:*", "plain"]).await;

    for (required, missing) in [
        (&["repo:read", "repo:read:all", "repo:*", "repo:a:*"][..], &[][..]),
        (&["org:acme:x", "org:acme:*", "plain"], &[]),
        (
            &["repo", "repository:read", "org:*", "org:other:x"],
            &["repo", "repository:read", "org:*", "org:other:x"],
        ),
        (&["plain:x", "plain", "plain:*"], &["plain:x", "plain:*"]),
        (&["tokend:read", "repo:read"], &["tokend:read"]),
    ] {
        let answer = verified(&mut root, &made.secret, required).await;
        let verdict = if missing.is_empty() { Verdict::Valid } else { Verdict::MissingScope };
        assert_eq!(answer.verdict(), verdict, "{required:?}");
        assert_eq!(answer.missing_scopes, missing, "{required:?}");
    }
}

#[tokio::test]
async fn a_root_token_does_not_cover_ordinary_scopes() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let secret = replica.installation.root_secret.clone();

    let answer = verified(&mut root, &secret, &["tokend:root", "repo:read"]).await;

    assert_eq!(
        (answer.verdict(), &*answer.missing_scopes),
        (Verdict::MissingScope, &["repo:read".to_owned()][..])
    );
}

#[tokio::test]
async fn any_text_that_is_not_a_secret_is_malformed() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let secret = created(&mut root, ordinary()).await.secret;
    let body = &secret[5..];
    let last = if secret.ends_with('0') { "1" } else { "0" };

    for text in [
        String::new(),
        "t".to_owned(),
        "tokd_".to_owned(),
        body.to_owned(),
        secret[..75].to_owned(),
        format!("{secret}0"),
        format!(" {secret}"),
        format!("{secret}\n"),
        format!("Bearer {secret}"),
        format!("toke_{body}"),
        format!("TOKD_{body}"),
        format!("tokd-{body}"),
        format!("{}{last}", &secret[..75]),
        format!("tokd_{}", "z".repeat(71)),
        format!("tokd_{}", "é".repeat(36)),
        "\0".repeat(76),
        secret.repeat(800),
    ] {
        let answer = verified(&mut root, &text, &["a"]).await;
        bare(&answer, Verdict::Malformed);
    }
}

#[tokio::test]
async fn an_unknown_id_and_a_wrong_secret_get_the_same_verdict() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let known = TokenId::parse(&made.token.unwrap().id).unwrap();
    let unknown = unknown_id();

    for id in [unknown, known, TokenId::from_bytes([0; 16])] {
        bare(&verified(&mut root, &forged(id), &["a"]).await, Verdict::NotFound);
    }
    replica.installation.database.execute(EXPIRE_ALL).await;
    revoked(&mut root, &known.to_string(), "").await;
    bare(&verified(&mut root, &forged(known), &[]).await, Verdict::NotFound);
}

#[tokio::test]
async fn a_deleted_token_is_not_found() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    replica.installation.database.execute("DELETE FROM tokens WHERE user_id = 'ada'").await;

    let answer = eventually("the deletion shows", async || {
        let answer = verified(&mut root, &made.secret, &[]).await;
        (answer.verdict() != Verdict::Valid).then_some(answer)
    })
    .await;

    bare(&answer, Verdict::NotFound);
}
