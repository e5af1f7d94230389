//! Every kind of bad credential is refused, by every RPC, before anything else is checked.

use tokend::api::proto::{DisableTokenRequest, EnableTokenRequest, ListTokensRequest, Verdict};
use tokend::secret::TokenId;
use tokio::task::JoinSet;
use tonic::Code;

use super::methods::{call, methods};
use crate::support::client::{
    bearing, created_with, forged, ordinary, question, revoked, unknown_id, verified,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

/// Checks that every RPC refuses these `authorization` values with this reason. Called at once: each refusal is delayed for what
/// an attacker would have to wait.
async fn closed(replica: &Replica, values: &[&str], reason: &str) {
    let calls: JoinSet<_> = methods().iter().map(|method| call(replica, values, method)).collect();
    for outcome in calls.join_all().await {
        refused(outcome, Code::Unauthenticated, reason);
    }
}

#[tokio::test]
async fn every_rpc_needs_a_credential() {
    closed(&Replica::start().await, &[], "CREDENTIAL_MISSING").await;
}

#[tokio::test]
async fn two_credentials_are_refused_even_if_both_are_valid() {
    let replica = Replica::start().await;
    let good = &*format!("Bearer {}", replica.installation.root_secret);

    closed(&replica, &[good, good], "CREDENTIAL_MALFORMED").await;
    closed(&replica, &[good, ""], "CREDENTIAL_MALFORMED").await;
    closed(&replica, &["Basic YTpi", good], "CREDENTIAL_MALFORMED").await;
}

/// RFC 9110 allows any number of spaces after the scheme, and ignores the scheme's case.
#[tokio::test]
async fn spaces_after_the_scheme_are_not_part_of_the_secret() {
    let replica = Replica::start().await;
    let secret = &*replica.installation.root_secret;

    for value in [format!("Bearer  {secret}"), format!("bearer   {secret}")] {
        let mut client = bearing(replica.channel(), &[&value]);
        client.list_tokens(ListTokensRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn anything_but_one_bearer_secret_is_malformed() {
    let replica = Replica::start().await;
    let secret = &*replica.installation.root_secret;

    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer tokd_",
        secret,
        &format!("Basic {secret}"),
        &format!("Token {secret}"),
        &format!("Bearer\t{secret}"),
        &format!("Bearer {secret},"),
        &format!("Bearer {secret}, Bearer {secret}"),
        &format!("Bearer {}", &secret[..75]),
        &format!("Bearer {}", secret.to_uppercase()),
        &format!("Bearer {}", "x".repeat(4000)),
    ] {
        closed(&replica, &[value], "CREDENTIAL_MALFORMED").await;
    }
}

#[tokio::test]
async fn a_secret_without_a_token_is_invalid() {
    let replica = Replica::start().await;
    let root_id = TokenId::parse(&replica.installation.root_secret[5..27]).unwrap();
    let unknown_id = unknown_id();

    for secret in [forged(unknown_id), forged(root_id)] {
        closed(&replica, &[&format!("Bearer {secret}")], "CREDENTIAL_INVALID").await;
    }
}

#[tokio::test]
async fn an_expired_credential_is_refused_for_every_scope() {
    let replica = Replica::start().await;
    let secret = created_with(&mut replica.root(), "", &["tokend:root"]).await.secret;
    let expire = "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'ada'";
    replica.installation.database.execute(expire).await;

    closed(&replica, &[&format!("Bearer {secret}")], "CREDENTIAL_EXPIRED").await;
}

#[tokio::test]
async fn a_revoked_credential_is_refused_for_every_scope() {
    let replica = Replica::start().await;
    let made = created_with(&mut replica.root(), "", &["tokend:root"]).await;
    let mut caller = replica.client(&made.secret);
    caller.list_tokens(ListTokensRequest::default()).await.unwrap();

    revoked(&mut caller, &made.token.unwrap().id, "by itself").await;

    closed(&replica, &[&format!("Bearer {}", made.secret)], "CREDENTIAL_REVOKED").await;
}

#[tokio::test]
async fn a_disabled_credential_is_refused_for_every_scope() {
    let replica = Replica::start().await;
    let made = created_with(&mut replica.root(), "", &["tokend:root"]).await;
    let mut caller = replica.client(&made.secret);
    caller.list_tokens(ListTokensRequest::default()).await.unwrap();

    caller
        .disable_token(DisableTokenRequest { token_id: made.token.unwrap().id, ..Default::default() })
        .await
        .unwrap();

    closed(&replica, &[&format!("Bearer {}", made.secret)], "CREDENTIAL_DISABLED").await;
}

/// A credential already verified on a connection is recognized only by its whole secret, and judged
/// each time.
#[tokio::test]
async fn callers_on_one_connection_are_distinguished_call_by_call() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let asked = created_with(&mut root, "elsewhere", &[]).await.secret;
    let verifier = created_with(&mut root, "", &["tokend:verify"]).await;
    let id = verifier.token.unwrap().id;
    let channel = replica.channel();
    let calling = |secret: &str| bearing(channel.clone(), &[&format!("Bearer {secret}")]);
    let (mut everywhere, mut confined) =
        (calling(&replica.installation.root_secret), calling(&verifier.secret));
    let mut impostor = calling(&forged(id.parse().unwrap()));

    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(verified(&mut everywhere, &asked, &[]).await.verdict(), Verdict::Valid);
        }
        for _ in 0..2 {
            assert_eq!(verified(&mut confined, &asked, &[]).await.verdict(), Verdict::NotFound);
        }
        refused(impostor.verify(question(&asked, &[])).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }

    assert_eq!(verified(&mut confined, &asked, &[]).await.verdict(), Verdict::NotFound);
    root.disable_token(DisableTokenRequest { token_id: id.clone(), ..Default::default() }).await.unwrap();
    // The second time its new record is cached.
    for _ in 0..2 {
        refused(confined.verify(question(&asked, &[])).await, Code::Unauthenticated, "CREDENTIAL_DISABLED");
    }
    root.enable_token(EnableTokenRequest { token_id: id.clone() }).await.unwrap();
    assert_eq!(verified(&mut confined, &asked, &[]).await.verdict(), Verdict::NotFound);
    revoked(&mut root, &id, "left").await;
    for _ in 0..2 {
        refused(confined.verify(question(&asked, &[])).await, Code::Unauthenticated, "CREDENTIAL_REVOKED");
    }
}

#[tokio::test]
async fn an_ordinary_token_may_call_no_rpc() {
    let replica = Replica::start().await;
    let secret = created_with(&mut replica.root(), "", &["repo:*", "tokendish:root"]).await.secret;

    for method in methods() {
        let outcome = call(&replica, &[&format!("Bearer {secret}")], &method).await;
        refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
    }
}

#[tokio::test]
async fn the_case_of_the_scheme_does_not_matter() {
    let replica = Replica::start().await;

    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let value = format!("{scheme} {}", replica.installation.root_secret);
        bearing(replica.channel(), &[&value]).create_token(ordinary()).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_is_refused_as_soon_as_its_callers_revocation_is_committed() {
    let replica = Replica::start().await;
    let made = created_with(&mut replica.root(), "", &["tokend:write"]).await;
    let mut caller = replica.client(&made.secret);
    caller.create_token(ordinary()).await.unwrap();
    let revoke =
        "UPDATE tokens SET revoke_time = now(), revoke_reason = '' WHERE 'tokend:write' = ANY(scopes)";
    assert_eq!(replica.installation.database.execute(revoke).await, 1);

    let outcome = caller.create_token(ordinary()).await;

    refused(outcome, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}
