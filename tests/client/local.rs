//! Local verdicts: what is judged locally is judged as by tokend, and what is not known is asked.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokend_client::{Connection, ErrorKind, LocalConfig, Prefix, Verdict, Verifier, VerifyRequest};
use tokend_core::secret::Secret;
use tokio::task::JoinSet;

use super::asking::{client_at, holding, is_held, judged_here, root, scopes, verdict};
use crate::setup::{Made, becomes, made};
use crate::support::client::{created, created_with, forged, mask, ordinary, revoked, texts};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

#[tokio::test]
async fn cached_tokens_are_judged_locally_and_exactly_as_by_tokend() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let request = tokend::api::proto::CreateTokenRequest {
        scopes: texts(&["repo:*"]),
        allowed_cidrs: texts(&["192.0.2.0/24"]),
        ..ordinary()
    };
    let token: Made = created(&mut admin, request).await.into();
    let verifier = Verifier::local(root(&replica), LocalConfig::default()).unwrap();
    let inside = Some("192.0.2.7".parse().unwrap());
    eventually("the token is held", async || {
        let (none, read) = (scopes(&[]), scopes(&["repo:read"]));
        let asked = VerifyRequest::new(&token.secret).required_scopes(&none).client_ip(inside);
        assert_eq!(verifier.verify(&asked).await.unwrap().verdict, Verdict::Valid);
        let answer = verifier.try_verify(&asked.required_scopes(&read))?;
        assert_eq!(answer.token.unwrap().user_id.as_str(), "ada");
        Some(())
    })
    .await;

    for (required, address, secret) in [
        (&[][..], inside, token.secret.clone()),
        (&["repo:read"], inside, token.secret.clone()),
        (&["user:read", "repo:x"], inside, token.secret.clone()),
        (&[], None, token.secret.clone()),
        (&[], Some("198.51.100.1".parse().unwrap()), token.secret.clone()),
        (&[], inside, forged(token.id.parse().unwrap())),
        (&[], inside, format!("{}0", token.secret)),
        (&[], inside, token.secret.replace("tokd_", "tokd_0")),
    ] {
        let required_scopes = scopes(required);
        let asked = VerifyRequest::new(&secret).required_scopes(&required_scopes).client_ip(address);
        let here = eventually("an answer from here", async || verifier.try_verify(&asked)).await;
        let there = Verifier::unary(root(&replica)).verify(&asked).await.unwrap();
        assert_eq!((here.verdict, here.missing_scopes), (there.verdict, there.missing_scopes));
        assert_eq!(here.token.map(|token| token.id), there.token.map(|token| token.id));
    }
    let status = verifier.local_status().unwrap();
    assert_eq!((status.cached, status.starts), (1, 1));
    assert!(status.local_verdicts >= 8 && status.bytes > 0);
}

#[tokio::test]
async fn unknown_secrets_are_sent_each_time_and_malformed_ones_never() {
    let replica = Replica::start().await;
    let (verifier, token) = holding(&replica, LocalConfig::default()).await;
    let unknown = forged(crate::support::client::unknown_id());

    // Only tokend knows which of the two prefixes is wrong.
    let secret = Secret::parse(&token.secret, &Prefix::default()).unwrap();
    let foreign = secret.render(&Prefix::parse("acme").unwrap()).expose_secret().to_owned();
    for secret in [unknown, foreign] {
        for _ in 0..2 {
            let asked = verifier.local_status().unwrap().remote_verdicts;
            assert_ne!(verdict(&verifier, &secret).await, Verdict::Valid);
            assert_eq!(verifier.local_status().unwrap().remote_verdicts, asked + 1, "{secret}");
        }
    }
    let away = Proxy::to_port(replica.address, LinkState::Cut).await;
    let knows_nothing =
        Verifier::local(client_at(away.address(), &replica.installation.root_secret), LocalConfig::default())
            .unwrap();
    for secret in
        ["nonsense", "", "ghp_abc", &token.secret.replace("tokd_", "acme_"), &format!("{}0", token.secret)]
    {
        for verifier in [&verifier, &knows_nothing] {
            let asked = verifier.local_status().unwrap().remote_verdicts;
            assert_eq!(verdict(verifier, secret).await, Verdict::Malformed, "{secret}");
            assert_eq!(verifier.local_status().unwrap().remote_verdicts, asked, "{secret}");
        }
    }
}

#[tokio::test]
async fn a_guessing_peer_causes_few_calls_and_affects_nobody_else() {
    let replica = Replica::start().await;
    let (verifier, token) = holding(&replica, LocalConfig::default()).await;
    let other = made(&mut replica.root()).await;
    let before = verifier.local_status().unwrap().remote_verdicts;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..3_000 {
        let (verifier, secret) = (verifier.clone(), forged(crate::support::client::unknown_id()));
        asking.spawn(async move {
            let client_ip = Some("192.0.2.66".parse().unwrap());
            let question = VerifyRequest::new(&secret).client_ip(client_ip);
            match verifier.verify(&question).await {
                Ok(answer) => assert_eq!(answer.verdict, Verdict::NotFound),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceExhausted),
            }
        });
    }
    in_time("all of them", asking.join_all()).await;
    let asked = verifier.local_status().unwrap().remote_verdicts - before;
    // The burst, the concurrent questions of the address, and ten more a second.
    let most = 100 + 256 + 10 * (began.elapsed().as_secs() + 1);
    assert!(asked <= most, "{asked} questions, {most} at most");

    for secret in [&token.secret, &other.secret] {
        let client_ip = Some("192.0.2.7".parse().unwrap());
        let question = VerifyRequest::new(secret).client_ip(client_ip);
        assert_eq!(verifier.verify(&question).await.unwrap().verdict, Verdict::Valid);
    }
    // A cached token costs no call, from any address.
    let client_ip = Some("192.0.2.66".parse().unwrap());
    let question = VerifyRequest::new(&token.secret).client_ip(client_ip);
    eventually("an answer from here", async || verifier.try_verify(&question)).await;
}

#[tokio::test]
async fn a_cached_token_expires_exactly_by_the_databases_clock() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let ttl = prost_types::Duration { seconds: 3, nanos: 0 };
    let request = tokend::api::proto::CreateTokenRequest {
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(ttl)),
        ..ordinary()
    };
    let verifier = Verifier::local(root(&replica), LocalConfig::default()).unwrap();
    is_held(&verifier, &made(&mut admin).await).await;
    let token: Made = created(&mut admin, request).await.into();

    let expired = eventually("it is expired, by a verdict from here", async || {
        verdict(&verifier, &token.secret).await;
        (judged_here(&verifier, &token.secret)? == Verdict::Expired).then_some(())
    });
    expired.await;
    // No earlier than tokend says so, except for the time that its response takes.
    becomes(&mut admin, &token, tokend::api::proto::Verdict::Expired).await;
}

#[tokio::test]
async fn every_change_reaches_the_local_cache() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let verifier = Verifier::local(root(&replica), LocalConfig::default()).unwrap();
    let token: Made = created_with(&mut admin, "acme", &["repo:read"]).await.into();
    is_held(&verifier, &token).await;
    let read = scopes(&["repo:read"]);
    let allowed = VerifyRequest::new(&token.secret).required_scopes(&read);

    let update = tokend::api::proto::UpdateTokenRequest {
        token_id: token.id.clone(),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    };
    admin.update_token(update).await.unwrap();
    eventually("the scope is gone", async || {
        (verifier.verify(&allowed).await.unwrap().verdict == Verdict::MissingScope).then_some(())
    })
    .await;
    is_held(&verifier, &token).await;

    let id = || token.id.clone();
    admin
        .disable_token(tokend::api::proto::DisableTokenRequest { token_id: id(), ..Default::default() })
        .await
        .unwrap();
    eventually("it is disabled", async || {
        (verdict(&verifier, &token.secret).await == Verdict::Disabled).then_some(())
    })
    .await;
    admin.enable_token(tokend::api::proto::EnableTokenRequest { token_id: id() }).await.unwrap();
    eventually("it is enabled", async || {
        (verdict(&verifier, &token.secret).await == Verdict::Valid).then_some(())
    })
    .await;
    is_held(&verifier, &token).await;

    // Changed by an operator, in psql.
    replica.installation.database.execute(crate::setup::revoking(&token)).await;
    eventually("it is revoked", async || {
        (verdict(&verifier, &token.secret).await == Verdict::Revoked).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_caller_of_one_organization_judges_only_its_own_tokens() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let caller = created_with(&mut admin, "acme", &["tokend:verify"]).await;
    let own: Made = created_with(&mut admin, "acme", &[]).await.into();
    let foreign: Made = created_with(&mut admin, "other", &[]).await.into();
    let verifier =
        Verifier::local(client_at(replica.address, &caller.secret), LocalConfig::default()).unwrap();

    is_held(&verifier, &own).await;
    assert_eq!(verdict(&verifier, &foreign.secret).await, Verdict::NotFound);
    revoked(&mut admin, &own.id, "").await;
    eventually("its revocation is heard of", async || {
        (verdict(&verifier, &own.secret).await == Verdict::Revoked).then_some(())
    })
    .await;

    // When the caller's own credential ends, nothing is judged locally.
    revoked(&mut admin, &caller.token.unwrap().id, "").await;
    eventually("nothing is judged here any more", async || {
        let age = verifier.local_status().unwrap().age;
        age.is_none_or(|age| age > Duration::from_secs(1)).then_some(())
    })
    .await;
    assert_eq!(judged_here(&verifier, &own.secret), None);
}

#[tokio::test]
async fn a_caller_that_loses_permissions_judges_nothing_more_locally() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let caller = created_with(&mut admin, "acme", &["tokend:verify:any"]).await;
    let foreign: Made = created_with(&mut admin, "other", &[]).await.into();
    let verifier =
        Verifier::local(client_at(replica.address, &caller.secret), LocalConfig::default()).unwrap();
    is_held(&verifier, &foreign).await;

    let update = tokend::api::proto::UpdateTokenRequest {
        token_id: caller.token.unwrap().id,
        scopes: texts(&["tokend:verify"]),
        update_mask: mask(&["scopes"]),
        ..Default::default()
    };
    admin.update_token(update).await.unwrap();

    eventually("another organization's token is unknown", async || {
        (verdict(&verifier, &foreign.secret).await == Verdict::NotFound).then_some(())
    })
    .await;
    assert_eq!(judged_here(&verifier, &foreign.secret), None);
}

/// Another caller's watch might not report every change of what this one has judged.
#[tokio::test]
async fn the_watch_uses_the_callers_credential_on_every_connection() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let confined = created_with(&mut admin, "acme", &["tokend:verify"]).await.secret;
    let foreign: Made = created_with(&mut admin, "other", &[]).await.into();
    let watch = client_at(replica.address, &confined);
    let verifier = Verifier::local(root(&replica), LocalConfig::default().watch_through(watch)).unwrap();
    is_held(&verifier, &foreign).await;

    revoked(&mut admin, &foreign.id, "").await;

    eventually("its revocation is heard of", async || {
        (verdict(&verifier, &foreign.secret).await == Verdict::Revoked).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cut_connection_keeps_the_cache_and_lost_changes_clear_it() {
    let replica = Replica::start().await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let watch = client_at(proxy.address(), &replica.installation.root_secret);
    let (verifier, token) = holding(&replica, LocalConfig::default().watch_through(watch)).await;
    let other = made(&mut replica.root()).await;
    is_held(&verifier, &other).await;

    proxy.set(LinkState::Cut);
    revoked(&mut replica.root(), &other.id, "").await;
    proxy.set(LinkState::Open);
    eventually("what was missed is heard of", async || {
        (verdict(&verifier, &other.secret).await == Verdict::Revoked).then_some(())
    })
    .await;
    eventually("the rest is still held", async || judged_here(&verifier, &token.secret)).await;
    assert_eq!(verifier.local_status().unwrap().starts, 1);

    // While there is no watch, a token is revoked and the record of that purged.
    proxy.set(LinkState::Cut);
    let database = &replica.installation.database;
    crate::setup::revoke_unrecorded(database, &token).await;
    proxy.set(LinkState::Open);
    eventually("it begins anew", async || (verifier.local_status().unwrap().starts == 2).then_some(())).await;
    // Asked of tokend, which may lag as far as it declares, and not cached meanwhile.
    eventually("the revocation is known", async || {
        (verdict(&verifier, &token.secret).await == Verdict::Revoked).then_some(())
    })
    .await;
    let here = eventually("it is held", async || {
        assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Revoked);
        judged_here(&verifier, &token.secret)
    });
    assert_eq!(here.await, Verdict::Revoked);
}

#[tokio::test]
async fn an_old_record_is_requested_again_without_a_reported_change() {
    let replica = Replica::start().await;
    let config = LocalConfig::default().max_age(Duration::from_secs(2));
    let (verifier, token) = holding(&replica, config).await;

    let asked = verifier.local_status().unwrap().remote_verdicts;
    eventually("it is asked for", async || {
        verdict(&verifier, &token.secret).await;
        (verifier.local_status().unwrap().remote_verdicts > asked).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_verifier_reports_whether_it_is_ready_and_why_not() {
    let replica = Replica::start().await;
    let proxy = Proxy::to_port(replica.address, LinkState::Cut).await;
    let client = Connection::to(format!("http://{}", proxy.address()))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(Duration::from_millis(500));
    let verifier = Verifier::local(client.open().unwrap(), LocalConfig::default()).unwrap();
    let status = || verifier.local_status().unwrap();

    let error = eventually("why it is not ready", async || status().last_error).await;
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded), "{error:?}");
    assert!(!status().ready());
    proxy.set(LinkState::Open);
    eventually("it is ready", async || {
        let status = status();
        status.ready().then(|| assert!(status.last_error.is_none()))
    })
    .await;
    proxy.set(LinkState::Cut);
    eventually("it is not", async || (!status().ready() && status().last_error.is_some()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_token_with_a_plan_is_never_judged_locally() {
    let replica = Replica::start().await;
    let mut admin = replica.root();
    let two = crate::support::plans::rate("calls", 2);
    let slow = tokend::api::proto::limit::Kind::Rate(tokend::api::proto::RateLimit {
        requests: 1,
        burst: 2,
        period: Some(prost_types::Duration { seconds: 31 * 86_400, nanos: 0 }),
        ..Default::default()
    });
    let limits = vec![tokend::api::proto::Limit { kind: Some(slow), ..two }];
    admin.set_plan(crate::support::plans::plan("default", "small", limits)).await.unwrap();
    let request = tokend::api::proto::CreateTokenRequest { plan: "small".to_owned(), ..ordinary() };
    let token: Made = created(&mut admin, request).await.into();
    let other = made(&mut admin).await;
    let verifier = Verifier::local(root(&replica), LocalConfig::default()).unwrap();
    eventually("another token is held", async || {
        verdict(&verifier, &other.secret).await;
        judged_here(&verifier, &other.secret)
    })
    .await;

    // An answer without limits must not make it a token without a plan.
    let required = scopes(&["not:held"]);
    let lacking = VerifyRequest::new(&token.secret).required_scopes(&required);
    assert_eq!(verifier.verify(&lacking).await.unwrap().verdict, Verdict::MissingScope);
    for expected in [Verdict::Valid, Verdict::Valid, Verdict::RateLimited, Verdict::RateLimited] {
        assert_eq!(judged_here(&verifier, &token.secret), None);
        let answer = verifier.verify(&VerifyRequest::new(&token.secret)).await.unwrap();
        assert_eq!((answer.verdict, answer.limits.len()), (expected, 1));
        assert_eq!(answer.retry_after.is_some(), expected == Verdict::RateLimited);
    }
    let asked = verifier.verify(&VerifyRequest::new(&token.secret).cost(0)).await.unwrap();
    assert_eq!((asked.verdict, asked.limits[0].remaining), (Verdict::Valid, 0));
    let unknown = verifier.verify(&VerifyRequest::new(&other.secret).limit("calls")).await.unwrap_err();
    assert_eq!(unknown.reason(), Some(tokend_client::ErrorReason::LimitNotFound));
}
