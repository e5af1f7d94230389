//! RFC 7009: the holder of a secret may revoke it, and the response does not reveal whether it was
//! a secret.

use tokend::api::proto::{GetTokenRequest, RotateTokenRequest, TokenState};

use super::asking::{Case, Decision, Fixture, trusting};
use crate::support::client::{created_with, forged, rotated, rotation, unknown_id};
use crate::support::eventually;
use crate::support::http::post;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Installation;

const PATH: &str = "/oauth2/revoke";

#[tokio::test]
async fn a_secret_revokes_its_token_and_the_tokens_rotated_from_it() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let made = created_with(&mut root, "acme", &[]).await;
    let graced = RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..rotation(&made.token.as_ref().unwrap().id)
    };
    let next = rotated(&mut root, graced).await;
    assert!(matches!(
        fixture.verify(&Case { secret: next.secret.clone(), ..Case::default() }).await,
        Decision::Admitted { .. }
    ));

    for _ in 0..2 {
        let reply = fixture.post(PATH, &[("token", &made.secret), ("token_type_hint", "access_token")]).await;
        assert_eq!((reply.status, &*reply.body), (200, ""));
    }

    for (secret, id) in [(made.secret, made.token.unwrap().id), (next.secret, next.token.unwrap().id)] {
        let output = fixture.verify(&Case { secret, ..Case::default() }).await;
        assert_eq!(output, Decision::Denied("revoked".to_owned()));
        let token =
            root.get_token(GetTokenRequest { token_id: id }).await.unwrap().into_inner().token.unwrap();
        assert_eq!(token.state(), TokenState::Revoked);
        assert_eq!(token.revoke_reason, "revoked by its holder (RFC 7009)");
    }
}

#[tokio::test]
async fn any_caller_may_revoke_and_an_unknown_secret_gets_the_same_response() {
    let fixture = Fixture::new().await;
    let own = created_with(&mut fixture.replica.root(), "other", &["plain"]).await.secret;
    let bearer = format!("Bearer {own}");

    for secret in ["nonsense", &forged(unknown_id()), &own] {
        let headers = [("authorization", &*bearer)];
        let reply = post(fixture.replica.http, PATH, &headers, &[("token", secret)]).await;
        assert_eq!((reply.status, &*reply.body), (200, ""));
    }

    // The token has revoked itself.
    let reply = post(fixture.replica.http, PATH, &[("authorization", &bearer)], &[("token", &own)]).await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn without_a_caller_or_a_token_nothing_is_done() {
    let fixture = Fixture::new().await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &[]).await.secret;

    assert_eq!(post(fixture.replica.http, PATH, &[], &[("token", &secret)]).await.status, 401);
    assert_eq!(fixture.post(PATH, &[]).await.status, 400);

    let output = fixture.verify(&Case { secret, ..Case::default() }).await;
    assert!(matches!(output, Decision::Admitted { .. }));
}

#[tokio::test]
async fn in_an_outage_no_revocation_is_reported_as_done() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    config.integrations = trusting();
    let fixture = Fixture::of(installation.serve(config).await).await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &[]).await.secret;
    proxy.set(LinkState::Cut);

    let reply = eventually("the cache is too old to answer", async || {
        let reply = fixture.post(PATH, &[("token", &secret)]).await;
        (reply.status != 401).then_some(reply)
    })
    .await;

    assert_eq!((reply.status, reply.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(reply.body, r#"{"error":"temporarily_unavailable"}"#);
}
