//! `/metrics`: what is counted, and that it names no user or token.

use std::collections::BTreeMap;

use crate::support::client::{bearing, created, ordinary, verified};
use crate::support::contract::rpcs;
use crate::support::eventually;
use crate::support::http::get;
use crate::support::replica::Replica;

/// Returns every sample, by its name and labels.
async fn samples(replica: &Replica) -> BTreeMap<String, f64> {
    let (status, text) = get(replica.http, "/metrics").await;
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test]
#[expect(clippy::float_cmp, reason = "counts are whole")]
async fn calls_verdicts_lookups_and_work_are_counted() {
    let replica = Replica::start().await;
    let before = samples(&replica).await;
    let mut root = replica.root();

    let made = created(&mut root, ordinary()).await;
    for _ in 0..5 {
        verified(&mut root, &made.secret, &[]).await;
    }
    verified(&mut root, "nonsense", &[]).await;
    let mut unauthenticated = bearing(replica.channel(), &["Bearer nonsense"]);
    unauthenticated.create_token(ordinary()).await.unwrap_err();

    let after = samples(&replica).await;
    let more = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    assert_eq!(more(r#"tokend_calls_total{code="OK",rpc="CreateToken"}"#), 1.0);
    assert_eq!(more(r#"tokend_calls_total{code="OK",rpc="Verify"}"#), 6.0);
    assert_eq!(more(r#"tokend_calls_total{code="UNAUTHENTICATED",rpc="CreateToken"}"#), 1.0);
    assert_eq!(more(r#"tokend_call_duration_seconds_count{rpc="Verify"}"#), 6.0);
    assert_eq!(more(r#"tokend_verdicts_total{verdict="valid"}"#), 5.0);
    assert_eq!(more(r#"tokend_verdicts_total{verdict="malformed"}"#), 1.0);
    assert_eq!(more("tokend_authentication_failures_total"), 1.0);
    assert_eq!(more(r#"tokend_argon2_done_total{purpose="creation"}"#), 1.0);
    assert!(more(r#"tokend_cache_lookups_total{result="hit"}"#) >= 4.0);
    assert!(more(r#"tokend_cache_lookups_total{result="miss"}"#) >= 1.0);
    assert!(more("tokend_loader_batch_records_count") >= 1.0);
    assert!(after["tokend_feed_age_seconds"] < 60.0);
    assert!(after["tokend_connections"] >= 1.0);
    assert!(after.keys().any(|name| name.starts_with("tokend_build_info{version=")));

    // The feed may have reported the creation only after the verdicts, and so removed the record.
    let cached = eventually("both records are cached", async || {
        verified(&mut root, &made.secret, &[]).await;
        let cached = samples(&replica).await;
        (cached["tokend_cache_records"] == 2.0).then_some(cached)
    })
    .await;
    // The tables are allocated from the start.
    let bytes = cached["tokend_cache_bytes"] - before["tokend_cache_bytes"];
    assert!((500.0..2_000.0).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn changes_and_uses_are_counted_when_they_are_handled() {
    let replica = Replica::start().await;

    let made = created(&mut replica.root(), ordinary()).await;
    verified(&mut replica.root(), &made.secret, &[]).await;

    eventually("the feed heard of the token, and its use was written down", async || {
        let now = samples(&replica).await;
        (now["tokend_feed_changes_total"] >= 1.0 && now["tokend_last_use_flushed_total"] >= 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_sample_names_a_token_a_user_or_an_organization() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut samples = Vec::new();
    for number in 0..5 {
        let mut request = ordinary();
        request.organization_id = format!("canary-organization-{number}");
        request.user_id = format!("canary-user-{number}");
        let made = created(&mut root, request).await;
        verified(&mut root, &made.secret, &[]).await;

        let (_, text) = get(replica.http, "/metrics").await;

        assert!(!text.contains("canary") && !text.contains(&made.secret[5..27]), "{text}");
        let (calls, others): (Vec<_>, Vec<_>) = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .partition(|line| line.starts_with("tokend_call"));
        assert!(calls.len() <= 36 * rpcs().len(), "{} samples of {} RPCs", calls.len(), rpcs().len());
        assert!(others.len() < 350, "{} samples", others.len());
        samples.push((calls.len(), others.len()));
    }
    // No label has values that grow with use.
    assert!(samples.iter().all(|counts| *counts == samples[0]), "{samples:?}");
}
