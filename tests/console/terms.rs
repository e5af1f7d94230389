//! The form for a new token under an organization's policy: what it offers, and what it says before it is sent.

use prost_types::Duration;
use tokend::api::proto::{CreateTokenRequest, Policy, UpdatePolicyRequest};

use super::Person;
use crate::support::client::{Client, created, created_with, ordinary, texts};
use crate::support::replica::Replica;

async fn set_policy(root: &mut Client, policy: Policy) {
    let request = UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(policy) };
    root.update_policy(request).await.unwrap();
}

/// Opens a new form with these fields filled in.
async fn form(person: &Person, query: &str) -> String {
    let opened = person.get(&format!("/tokens/new?{query}")).await;
    person.get(&opened.header("location").unwrap()).await.body
}

#[tokio::test]
async fn only_what_the_policy_allows_is_offered() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await.secret;
    let admin = Person::of(replica.console, &admin).await;
    let free = form(&admin, "").await;
    for words in ["365 days", "No expiration", "value=\"tokend:read\"", "id=\"scopes\" name"] {
        assert!(free.contains(words), "{words}");
    }
    let policy = Policy {
        longest_lifetime: Some(Duration { seconds: 45 * 86_400, nanos: 0 }),
        allowed_scopes: texts(&["reports:read", "logs:read", "tokend:read"]),
        ..Default::default()
    };
    set_policy(&mut root, policy).await;

    let page = form(&admin, "scope=reports:read&scope=other").await;

    for words in
        ["7 days", "30 days", "45 days, the longest", "allows at most 45 days", "value=\"logs:read\""]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    for words in ["60 days", "No expiration", "value=\"tokend:write\"", "textarea id=\"scopes\""] {
        assert!(!page.contains(words), "{words}");
    }
    assert!(page.contains("value=\"reports:read\" checked") && !page.contains("value=\"logs:read\" checked"));
    // What is offered is accepted.
    let nonce = admin.new_form().await;
    let fields = [("expiration", "3888000s"), ("scope", "reports:read"), ("scope", "logs:read")];
    let reply = admin.generate(&nonce, "n", &fields).await;
    assert_eq!(reply.status, 303, "{}", reply.body);

    // Patterns let people type what they cover.
    let policy =
        Policy { allowed_scopes: texts(&["reports:*"]), expiration_required: true, ..Default::default() };
    set_policy(&mut root, policy).await;
    let page = form(&admin, "").await;
    for words in ["requires an expiration", "textarea id=\"scopes\"", "<code>reports:*</code>"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("No expiration"));

    // Root tokens are bound by none, so somebody who may create them sees what only these may have.
    let person = Person::root(&replica).await;
    let page = form(&person, "organization=acme").await;
    let (_, never) = page.split_once("value=\"never\"").unwrap();
    assert!(never.split("</label>").next().unwrap().contains("only with tokend:root"));
    assert!(!form(&person, "organization=other").await.contains("only with tokend:root"));
}

#[tokio::test]
async fn the_form_says_which_of_a_users_tokens_this_is() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set_policy(&mut root, Policy { most_active_tokens_per_user: 3, ..Default::default() }).await;
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let signed_in = super::sign_in(replica.console, &writer).await;
    let cookie = super::cookie(&signed_in);
    let writer = Person { address: replica.console, cookie, form_token: String::new() };
    let request = |user_id: &str| CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user_id.to_owned(),
        ..ordinary()
    };
    for (user, said) in [
        ("bob", "This is bob&#39;s 1st of 3 tokens."),
        ("bob", "2nd of 3"),
        ("bob", "3rd of 3"),
        ("bob", "bob has 3 of the 3"),
    ] {
        let page = form(&writer, "user=bob").await;
        assert!(page.contains(said), "{said}: {page}");
        if !said.contains("has") {
            created(&mut root, request(user)).await;
        }
    }
    assert!(!form(&writer, "").await.contains("of 3"));
    // Another organization than that of the typed name has other terms.
    let person = Person::root(&replica).await;
    assert!(form(&person, "user=bob&organization=acme").await.contains("bob has 3 of the 3"));
    assert!(!form(&person, "user=bob&organization=other").await.contains("of 3"));
    let nonce = person.new_form().await;
    let fields =
        [("form", &*nonce), ("name", "n"), ("user", "bob"), ("organization", "acme"), ("expiration", "7d")];
    let refused = person.post("/tokens/new", &fields).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("id=\"user-problem\""), "{}", refused.body);
}
