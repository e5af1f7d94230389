//! The editor of a policy: checked before it is saved, and saved over nobody else's.

use tokend::api::proto::{CreateTokenRequest, GetPolicyRequest, Policy, UpdatePolicyRequest};

use super::{Person, hidden};
use crate::support::client::{created, created_with, ordinary, texts};
use crate::support::replica::Replica;

const FIELDS: [(&str, &str); 6] = [
    ("organization", "acme"),
    ("lifetime", "30d"),
    ("required", "on"),
    ("grace", "24h"),
    ("most", "5"),
    ("scopes", "reports:* logs:read"),
];

async fn stored(replica: &Replica, organization_id: &str) -> Option<Policy> {
    let request = GetPolicyRequest { organization_id: organization_id.to_owned() };
    replica.root().get_policy(request).await.unwrap().into_inner().policy
}

#[tokio::test]
async fn a_policy_is_checked_then_saved_and_changes_no_token() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let endless = CreateTokenRequest {
        name: "<endless>".to_owned(),
        organization_id: "acme".to_owned(),
        scopes: texts(&["other:x"]),
        ..ordinary()
    };
    let endless = created(&mut replica.root(), endless).await.token.unwrap();
    let page = person.get("/policy?organization=acme").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("everything is allowed"), "{}", page.body);
    assert!(!page.body.contains("Save this policy"), "what was not checked cannot be saved");

    let checked = person.post("/policy", &[&FIELDS[..], &[("act", "check")]].concat()).await;
    assert_eq!(checked.status, 200, "{}", checked.body);
    for text in [
        "1 token breaks it",
        "&#60;endless&#62;",
        "its scopes are not allowed",
        &endless.id,
        "Save this policy",
    ] {
        assert!(checked.body.contains(text), "{text}: {}", checked.body);
    }
    assert!(checked.body.contains("tokend policy dry-run --organization"), "{}", checked.body);
    assert!(checked.body.len() < 50_000);
    assert_eq!(stored(&replica, "acme").await, Some(Policy::default()));

    let based_on = hidden(&checked.body, "based_on");
    let save = [&FIELDS[..], &[("act", "save"), ("based_on", based_on), ("reuse", "on")]].concat();
    let saved = person.post("/policy", &save).await;
    assert_eq!(saved.status, 303, "{}", saved.body);
    let page = person.get(&saved.header("location").unwrap()).await.body;
    assert!(
        page.contains("Saved.") && page.contains("value=\"30d\"") && page.contains("value=\"1d\""),
        "{page}"
    );
    let policy = stored(&replica, "acme").await.unwrap();
    assert_eq!(policy.longest_lifetime.unwrap().seconds, 30 * 86_400);
    assert_eq!(policy.longest_grace.unwrap().seconds, 86_400);
    assert!(policy.expiration_required && policy.reuse_detection);
    assert_eq!(
        (policy.most_active_tokens_per_user, policy.allowed_scopes),
        (5, texts(&["reports:*", "logs:read"]))
    );
    assert_eq!(stored(&replica, "").await, Some(Policy::default()));
    let found = super::tokens_of(&replica, &endless.user_id).await;
    assert!(found.iter().any(|token| token.id == endless.id && token.revoke_time.is_none()));
}

#[tokio::test]
async fn nobody_saves_over_a_policy_that_they_have_not_seen() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let page = person.get("/policy?organization=acme").await.body;
    let based_on = hidden(&page, "based_on").to_owned();
    let theirs = Policy { most_active_tokens_per_user: 7, ..Default::default() };
    let request = UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(theirs.clone()) };
    replica.root().update_policy(request).await.unwrap();

    let save = [&FIELDS[..], &[("act", "save"), ("based_on", &*based_on)]].concat();
    let reply = person.post("/policy", &save).await;
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert!(reply.body.contains("somebody has saved another policy") && reply.body.contains("value=\"30d\""));
    assert_eq!(stored(&replica, "acme").await, Some(theirs));
    // Who has seen that may go on.
    let based_on = hidden(&reply.body, "based_on").to_owned();
    let save = [&FIELDS[..], &[("act", "save"), ("based_on", &*based_on)]].concat();
    assert_eq!(person.post("/policy", &save).await.status, 303);
}

#[tokio::test]
async fn only_root_saves_a_policy_and_what_is_wrong_stands_beside_its_field() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await.secret;
    let admin = Person::of(replica.console, &admin).await;
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let writer = super::cookie(&super::sign_in(replica.console, &writer).await);

    let page = admin.get("/policy").await;
    assert_eq!(page.status, 200);
    let checked = admin.post("/policy", &FIELDS).await;
    assert_eq!(checked.status, 200);
    assert!(!checked.body.contains("Save this policy"), "{}", checked.body);
    let save = [&FIELDS[..], &[("act", "save"), ("based_on", "")]].concat();
    assert_eq!(admin.post("/policy", &save).await.status, 403);
    let foreign = admin.get("/policy?organization=other").await;
    assert_eq!(foreign.status, 400);
    assert!(foreign.body.contains("another organization"), "{}", foreign.body);
    let reply =
        crate::support::http::send(replica.console, "GET", "/policy", &[("cookie", &writer)], "").await;
    assert_eq!(reply.status, 403);
    assert_eq!(stored(&replica, "acme").await, Some(Policy::default()));

    let person = Person::root(&replica).await;
    let wrong =
        [("organization", "acme"), ("lifetime", "soon"), ("grace", "31d"), ("most", "-1"), ("scopes", "NO")];
    for act in ["check", "save"] {
        let reply = person.post("/policy", &[&wrong[..], &[("act", act)]].concat()).await;
        assert_eq!(reply.status, 400);
        for field in ["lifetime", "grace", "most", "scopes"] {
            assert!(reply.body.contains(&format!("id=\"{field}-problem\"")), "{field}: {}", reply.body);
        }
        assert!(reply.body.contains("value=\"soon\""), "what was typed stays");
    }
    // An old sign-in has to be proven again.
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    replica.installation.database.execute(stale).await;
    let reply = person.post("/policy", &save).await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("id=\"proof-problem\""), "{}", reply.body);
    let proof = replica.installation.root_secret.clone();
    let reply = person.post("/policy", &[&save[..], &[("proof", &*proof)]].concat()).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
}
