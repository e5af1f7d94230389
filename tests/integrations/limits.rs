//! Tokens with a plan over every integration: what is spent, what is refused, and what the answers say of limits.

use serde_json::{Value, json};
use tokend::api::grpc::envoy::check_response::HttpResponse;
use tokend::api::grpc::envoy::{CheckResponse, HeaderValueOption};
use tokend::api::proto::limit::Kind;
use tokend::api::proto::{CreateTokenRequest, Limit, RateLimit};

use super::asking::{CLUSTER, Fixture};
use super::ext_authz::{Check, check};
use crate::support::client::{Client, created, ordinary, texts};
use crate::support::http::{Reply, get, send};
use crate::support::plans::{plan, rate};

/// A plan with a burst that does not refill while a test runs.
pub(super) async fn plan_of_burst(root: &mut Client, burst: i64) {
    let period = Some(prost_types::Duration { seconds: 31 * 86_400, nanos: 0 });
    let kind = Kind::Rate(RateLimit { requests: 1, period, burst, ..RateLimit::default() });
    let limit = Limit { kind: Some(kind), ..rate("calls", 1) };
    root.set_plan(plan("acme", "small", vec![limit])).await.unwrap();
}

/// A fixture with a plan of three requests, and the secret of a token of it.
async fn limited() -> (Fixture, String) {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    plan_of_burst(&mut root, 3).await;
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        plan: "small".to_owned(),
        scopes: texts(&[CLUSTER]),
        ..ordinary()
    };
    let secret = created(&mut root, request).await.secret;
    (fixture, secret)
}

/// Returns the number of requests that are left by the header, which must have the policy beside it.
fn left(header: impl Fn(&str) -> Option<String>) -> Option<u32> {
    let policy = header("ratelimit-policy")?;
    assert_eq!(policy, r#""calls";q=3;w=8035200"#);
    let state = header("ratelimit").unwrap();
    let (left, reset) =
        state.strip_prefix(r#""calls";r="#).unwrap().split_once(";t=").unwrap_or((&state[10..], ""));
    assert!(reset.is_empty() || (1..=8_035_200).contains(&reset.parse::<u32>().unwrap()), "{state}");
    Some(left.parse().unwrap())
}

fn of(reply: &Reply) -> (u16, Option<u32>) {
    (reply.status, left(|name| reply.header(name)))
}

#[tokio::test]
async fn gateways_spend_and_pass_on_what_is_left() {
    let (fixture, secret) = limited().await;
    let bearer = format!("Bearer {secret}");
    let ask = async |query: &str, required: Option<&str>| {
        let mut headers = vec![("authorization", &*bearer)];
        headers.extend(required.map(|scope| ("x-tokend-require-scopes", scope)));
        send(fixture.replica.http, "GET", &format!("/auth{query}"), &headers, "").await
    };

    assert_eq!(of(&ask("", None).await), (200, Some(2)));
    assert_eq!(of(&ask("?cost=0", None).await), (200, Some(2)), "it only asks");
    assert_eq!(of(&ask("?limit=calls&cost=0", None).await), (200, Some(2)));
    for (query, required, status) in [
        ("?limit=other", None, 400),
        ("?cost=x", None, 400),
        ("?scope=a:b", None, 403),
        ("", Some("a:b"), 403),
        ("", Some("not a scope!"), 403),
    ] {
        assert_eq!(of(&ask(query, required).await), (status, None), "{query} {required:?}");
    }
    assert_eq!(of(&ask("?cost=2", None).await), (200, Some(0)), "none of these has spent");

    let refused = ask("", None).await;
    assert_eq!(of(&refused), (429, Some(0)));
    assert_eq!(refused.body, r#"{"error":"rate_limited","verdict":"rate_limited"}"#);
    assert_eq!(refused.header("www-authenticate"), None);
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let never = ask("?cost=4", None).await;
    assert_eq!((of(&never), never.header("retry-after")), ((429, Some(0)), None), "waiting does not help");
    let metrics = get(fixture.replica.http, "/metrics").await.1;
    assert!(metrics.contains(r#"integration_calls_total{integration="forward_auth",outcome="limited"} 2"#));
}

#[tokio::test]
async fn introspection_answers_a_used_up_limit_with_429() {
    let (fixture, secret) = limited().await;
    let ask = async |more: &[(&str, &str)]| {
        fixture.post("/oauth2/introspect", &[&[("token", &*secret)], more].concat()).await
    };

    assert_eq!(of(&ask(&[]).await), (200, Some(2)));
    assert_eq!(of(&ask(&[("cost", "2"), ("limit", "calls")]).await), (200, Some(0)));
    let refused = ask(&[]).await;
    assert_eq!(of(&refused), (429, Some(0)));
    assert!(refused.header("retry-after").is_some() && !refused.body.contains("active"), "{refused:?}");
    let asked = ask(&[("cost", "0")]).await;
    assert_eq!(of(&asked), (200, Some(0)));
    assert!(asked.body.starts_with(r#"{"active":true"#), "{asked:?}");
    assert_eq!(ask(&[("limit", "other")]).await.status, 400);
}

#[tokio::test]
async fn a_token_review_of_a_used_up_limit_is_not_authenticated_and_says_why() {
    let (fixture, secret) = limited().await;
    let status = |reply: &Reply| serde_json::from_str::<Value>(&reply.body).unwrap()["status"].clone();

    for left in [2, 1, 0] {
        let reply = fixture.review(&secret, &[]).await;
        assert_eq!((of(&reply), &status(&reply)["authenticated"]), ((200, Some(left)), &json!(true)));
    }
    let refused = fixture.review(&secret, &[]).await;
    let expected = json!({"authenticated": false, "error": "a limit of the token is used up"});
    assert_eq!((of(&refused), status(&refused)), ((200, Some(0)), expected));
    // Audiences that the token does not have are asked for twice, and spend once at most.
    let fresh = limited().await;
    let reply = fresh.0.review(&fresh.1, &[CLUSTER, "other:thing"]).await;
    assert_eq!(of(&reply), (200, Some(2)));
}

#[tokio::test]
async fn envoy_gets_limits_for_the_client_and_as_metadata() {
    let (fixture, secret) = limited().await;
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", &*bearer)];
    let ask = async |extensions: &[(&str, &str)]| {
        check(&fixture.replica, &Check { headers: &headers, extensions, ..Check::default() }).await
    };
    let named = |headers: &[HeaderValueOption], name: &str| {
        let mut found = headers.iter().filter_map(|option| option.header.as_ref());
        found.find(|header| header.key == name).map(|header| header.value.clone())
    };

    for (extensions, expected) in
        [(&[][..], 2), (&[("cost", "0")], 2), (&[("cost", "2"), ("limit", "calls")], 0)]
    {
        let CheckResponse { http_response, dynamic_metadata, .. } = ask(extensions).await;
        let Some(HttpResponse::OkResponse(ok)) = http_response else { panic!("{extensions:?}") };
        assert_eq!(left(|name| named(&ok.response_headers_to_add, name)), Some(expected));
        let shown = format!("{:?}", dynamic_metadata.unwrap());
        for part in
            [r#"StringValue("small")"#, r#"StringValue("calls")"#, &format!("NumberValue({expected}.0)")]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let Some(HttpResponse::DeniedResponse(denied)) = ask(&[]).await.http_response else { panic!("let in") };
    assert_eq!((denied.status.unwrap().code, left(|name| named(&denied.headers, name))), (429, Some(0)));
    assert!(named(&denied.headers, "retry-after").is_some());
}
