//! "My tokens": what somebody gets who signs in with a token that has `tokend:self`.

use tokend::api::proto::CreateTokenRequest;

use super::{Person, tokens_of};
use crate::support::client::{created, ordinary, texts};
use crate::support::replica::Replica;

fn of_user(user_id: &str, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user_id.to_owned(),
        scopes: texts(scopes),
        ..ordinary()
    }
}

#[tokio::test]
async fn somebody_with_tokend_self_sees_and_makes_only_their_own_tokens() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let secret = created(&mut root, of_user("ada", &["tokend:self", "reports:*"])).await.secret;
    let foreign = created(&mut root, of_user("bob", &[])).await.token.unwrap().id;
    let wider = created(&mut root, of_user("ada", &["orders:read"])).await.token.unwrap().id;
    let ada = Person::of(replica.console, &secret).await;

    let list = ada.get("/tokens").await.body;
    assert!(list.contains("<h1>My tokens</h1>") && list.contains(&wider) && !list.contains(&foreign));
    assert!(!list.contains("href=\"/audit\"") && !list.contains("href=\"/policy\""));
    assert_eq!(ada.get("/tokens?user=bob").await.status, 403);
    for (path, status) in
        [(format!("/tokens/{foreign}"), 404), ("/audit".to_owned(), 403), ("/policy".to_owned(), 403)]
    {
        assert_eq!(ada.get(&path).await.status, status, "{path}");
    }

    let nonce = ada.new_form().await;
    let form = ada.get(&format!("/tokens/new?form={nonce}")).await.body;
    assert!(form.contains("readonly value=\"ada\"") && form.contains("value=\"reports:*\""), "{form}");
    assert!(!form.contains("name=\"privilege\""));
    let reply = ada.generate(&nonce, "n", &[("expiration", "7d"), ("scopes", "orders:read")]).await;
    assert!(
        reply.status == 403 && reply.body.contains("may not issue tokens with one of these scopes"),
        "{}",
        reply.body
    );
    let foreign_form = [("form", &*nonce), ("name", "n"), ("user", "bob"), ("expiration", "7d")];
    let reply = ada.post("/tokens/new", &foreign_form).await;
    assert!(reply.status == 403 && reply.body.contains("id=\"user-problem\""), "{}", reply.body);
    ada.created(&nonce, "mine", &[("scopes", "reports:read")]).await;
    assert!(tokens_of(&replica, "ada").await.iter().any(|token| token.name == "mine"));

    // One with more than they may issue: they end it, and do nothing else with it.
    let page = ada.get(&format!("/tokens/{wider}")).await.body;
    assert!(page.contains(&format!("/tokens/{wider}/revoke")), "{page}");
    assert!(
        !page.contains(&format!("/tokens/{wider}/rotate"))
            && !page.contains(&format!("/tokens/{wider}/edit"))
    );
}
