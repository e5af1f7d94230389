//! Common to all integrations: their calls are counted, and guessing is slowed down in each.

use tokio::task::JoinSet;

use super::asking::{Case, Fixture, Interface};
use crate::support::client::{forged, unknown_id};
use crate::support::http::{get, send};

#[tokio::test]
async fn calls_are_counted_by_integration_and_outcome() {
    let fixture = Fixture::new().await;
    let case = Case { secret: fixture.backend.clone(), ..Case::default() };
    fixture.ask(Interface::Introspection, &case).await;
    fixture.ask(Interface::ForwardAuth, &case).await;
    fixture.ask(Interface::ForwardAuth, &Case { required: vec!["x"], ..case.clone() }).await;
    fixture.ask(Interface::ForwardAuth, &Case { secret: "nonsense".to_owned(), ..case.clone() }).await;
    fixture.post("/oauth2/revoke", &[]).await;

    let (_, text) = get(fixture.replica.http, "/metrics").await;
    for line in [
        r#"tokend_integration_calls_total{integration="introspection",outcome="done"} 1"#,
        r#"tokend_integration_calls_total{integration="forward_auth",outcome="done"} 1"#,
        r#"tokend_integration_calls_total{integration="forward_auth",outcome="forbidden"} 1"#,
        r#"tokend_integration_calls_total{integration="forward_auth",outcome="unauthenticated"} 1"#,
        r#"tokend_integration_calls_total{integration="revocation",outcome="invalid"} 1"#,
        r#"tokend_integration_call_duration_seconds_count{integration="forward_auth"} 3"#,
        r#"tokend_verdicts_total{verdict="malformed"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_guessing_client_waits_and_delays_nobody_else() {
    let fixture = Fixture::new().await;
    let address = fixture.replica.http;
    let ask = async move |client: &str, secret: String| {
        let headers = [("authorization", &*format!("Bearer {secret}")), ("x-forwarded-for", client)];
        send(address, "GET", "/auth", &headers, "").await.status
    };
    let mut guesses = JoinSet::new();
    for _ in 0..40 {
        guesses.spawn(async move { ask("192.0.2.66", forged(unknown_id())).await });
    }
    let mut answered = 0;
    // The guesses without a delay, and the first delayed one.
    for _ in 0..11 {
        assert_eq!(guesses.join_next().await.unwrap().unwrap(), 401);
        answered += 1;
    }

    assert_eq!(ask("192.0.2.66", fixture.backend.clone()).await, 200);
    assert_eq!(ask("198.51.100.1", forged(unknown_id())).await, 401);

    while guesses.try_join_next().is_some() {
        answered += 1;
    }
    assert!(answered < 40, "no guess was held back");
    while let Some(status) = guesses.join_next().await {
        assert_eq!(status.unwrap(), 401);
    }
}
