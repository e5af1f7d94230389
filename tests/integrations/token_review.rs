//! Kubernetes' `TokenReview`: who may send it, and what the response has and does not have, in
//! which words.

use std::process::Command;

use serde_json::{Value, json};
use tokend::api::proto::CreateTokenRequest;

use super::asking::{AUDIENCE, CLUSTER, Fixture, review};
use super::program::{TestDir, find};
use crate::support::client::{created, created_with, forged, ordinary, revoked, texts, unknown_id};
use crate::support::http::{Reply, send};
use crate::support::replica::Replica;

const PATH: &str = "/tokenreview";

fn status(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control").unwrap(), "no-store");
    let mut body: Value = serde_json::from_str(&reply.body).unwrap();
    let status = body["status"].take();
    let shell = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": ""},
        "status": null,
    });
    assert_eq!(body, shell);
    status
}

#[tokio::test]
async fn a_valid_token_is_a_user_in_the_group_of_its_organization() {
    let fixture = Fixture::new().await;
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "dev:ada é".to_owned(),
        scopes: texts(&[CLUSTER, "vault:*"]),
        ..ordinary()
    };
    let made = created(&mut fixture.replica.root(), request).await;

    let printed = status(&fixture.review(&made.secret, &[]).await);

    let extra = json!({"tokend/token-id": [made.token.unwrap().id], "tokend/scopes": [CLUSTER, "vault:*"]});
    let user = json!({"username": "tokend:acme:dev:ada%20%C3%A9", "groups": ["tokend:acme"], "extra": extra});
    assert_eq!(printed, json!({"authenticated": true, "user": user, "audiences": []}));
}

#[tokio::test]
async fn audiences_whose_scopes_the_token_has_are_granted() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let cluster = created_with(&mut root, "acme", &[CLUSTER]).await.secret;
    let vault = created_with(&mut root, "acme", &["vault:*"]).await.secret;
    let both = created_with(&mut root, "acme", &[CLUSTER, "vault:*"]).await.secret;

    for (secret, asked, granted) in [
        (&cluster, &[][..], Some(&[][..])),
        (&vault, &[], None),
        (&cluster, &[AUDIENCE], Some(&[AUDIENCE])),
        (&vault, &[AUDIENCE], None),
        (&vault, &["vault:login"], Some(&["vault:login"])),
        (&cluster, &["vault:login"], None),
        (&vault, &[AUDIENCE, "vault:login"], Some(&["vault:login"])),
        (&both, &["vault:login", AUDIENCE, "other"], Some(&["vault:login", AUDIENCE])),
        (&both, &["https://vault.example", "vault:login"], Some(&["vault:login"])),
        // Neither a scope nor the API server's audience.
        (&both, &["https://vault.example"], None),
        (&both, &[""], None),
        (&both, &["tokend:root"], None),
    ] {
        let printed = status(&fixture.review(secret, asked).await);
        match granted {
            Some(granted) => {
                assert_eq!(printed["authenticated"], true, "{asked:?}: {printed}");
                assert_eq!(printed["audiences"], json!(granted), "{asked:?}");
            }
            None => assert_eq!(printed["authenticated"], false, "{asked:?}: {printed}"),
        }
    }
}

#[tokio::test]
async fn every_invalid_token_gets_the_same_response() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let gone = created_with(&mut root, "acme", &[CLUSTER]).await;
    revoked(&mut root, &gone.token.unwrap().id, "").await;
    let lacking = created_with(&mut root, "acme", &[]).await.secret;
    let elsewhere = created_with(&mut root, "other", &[CLUSTER]).await.secret;

    for secret in ["", "nonsense", &forged(unknown_id()), &gone.secret, &lacking, &elsewhere] {
        let printed = status(&fixture.review(secret, &[AUDIENCE]).await);
        assert_eq!(printed, json!({"authenticated": false, "error": "the token is not accepted"}));
    }
}

#[tokio::test]
async fn only_callers_that_may_verify_are_answered() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    let secret = created_with(&mut root, "acme", &[CLUSTER]).await.secret;
    let anywhere = created_with(&mut root, "third", &["tokend:verify:any"]).await.secret;

    for (caller, expected) in [
        (None, 401),
        (Some("nonsense"), 401),
        // The token under review does not authenticate the caller.
        (Some(&*secret), 403),
        (Some(&*anywhere), 200),
    ] {
        let bearer = caller.map(|caller| format!("Bearer {caller}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", &**bearer)).collect();
        let body = review(&secret, &[]).to_string();
        let reply = send(fixture.replica.http, "POST", PATH, &headers, &body).await;
        assert_eq!(reply.status, expected, "{reply:?}");
        assert_eq!(reply.body.contains("authenticated\":"), expected == 200, "{reply:?}");
    }
}

#[tokio::test]
async fn anything_but_a_token_review_is_invalid() {
    let fixture = Fixture::new().await;
    let bearer = format!("Bearer {}", fixture.backend);
    let good = review("nonsense", &[]).to_string();
    let many: Vec<String> = (0..65).map(|number| format!("scope{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();

    for body in [
        String::new(),
        "token=a".to_owned(),
        good.replace("io/v1", "io/v1beta1"),
        good.replace("TokenReview", "SubjectAccessReview"),
        good.replace("token\"", "tokens\""),
        review("nonsense", &many).to_string(),
    ] {
        let reply = send(fixture.replica.http, "POST", PATH, &[("authorization", &bearer)], &body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body.starts_with(r#"{"error":"invalid_request","#), "{reply:?}");
    }
    let reply = send(fixture.replica.http, "POST", PATH, &[("authorization", &bearer)], &good).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn without_its_configuration_the_path_does_not_exist() {
    let replica = Replica::start().await;
    assert_eq!(send(replica.http, "POST", PATH, &[], &review("a", &[]).to_string()).await.status, 404);
}

#[tokio::test]
async fn request_and_replies_are_what_kubernetes_publishes() {
    let Some(program) = find("kubernetes-validate") else { return };
    let fixture = Fixture::new().await;
    let secret = created_with(&mut fixture.replica.root(), "acme", &[CLUSTER, "vault:*"]).await.secret;
    let test_dir = TestDir::new();
    let fits = |name: &str, text: &str| {
        let file = test_dir.write(name, text);
        let mut command = Command::new(&program);
        command.args(["--strict", "--quiet", "--no-warn", &file]).output().unwrap().status.success()
    };
    let yes = fixture.review(&secret, &[AUDIENCE, "vault:login"]).await.body;

    assert!(fits("request.json", &review(&secret, &[AUDIENCE]).to_string()));
    assert!(fits("yes.json", &yes));
    assert!(fits("no.json", &fixture.review("nonsense", &[]).await.body));
    // The check does look at the fields.
    assert!(!fits("misspelt.json", &yes.replace("username", "userName")));
    assert!(!fits("untyped.json", &yes.replace(r#"["tokend:acme"]"#, r#""tokend:acme""#)));
}
