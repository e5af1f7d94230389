//! The last refusal of a token whose secret was right: what it says, and the tokens that a list finds by it.

use tokend::api::proto::{DisableTokenRequest, ListTokensRequest, Verdict};

use super::get::got;
use crate::support::client::{created, ordinary, question, second, texts, verified};
use crate::support::eventually;
use crate::support::replica::Replica;

#[tokio::test]
async fn a_token_keeps_its_last_refusal_and_lists_find_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let request = tokend::api::proto::CreateTokenRequest { scopes: texts(&["a"]), ..ordinary() };
    let refused = created(&mut root, request).await;
    let used = created(&mut root, ordinary()).await;
    let idle = created(&mut root, ordinary()).await.token.unwrap().id;
    let (id, used_id) = (refused.token.unwrap().id, used.token.unwrap().id);
    verified(&mut root, &used.secret, &[]).await;
    let mut asked = question(&refused.secret, &["a", "b:1", "b:2", "b:3", "b:4", "b:5"]);
    asked.client_ip = "192.0.2.7".to_owned();
    assert_eq!(root.verify(asked).await.unwrap().into_inner().verdict(), Verdict::MissingScope);

    let refusal =
        eventually("the refusal is recorded", async || got(&mut replica.root(), &id).await.last_refusal)
            .await;
    assert_eq!((refusal.verdict(), &*refusal.client_ip), (Verdict::MissingScope, "192.0.2.7"));
    assert_eq!(refusal.missing_scopes, ["b:1", "b:2", "b:3", "b:4"]);
    eventually("the use is recorded", async || got(&mut replica.root(), &used_id).await.last_use_time).await;

    let disabling = DisableTokenRequest { token_id: id.clone(), ..Default::default() };
    root.disable_token(disabling).await.unwrap();
    verified(&mut root, &refused.secret, &[]).await;
    let last = eventually("the next refusal is recorded", async || {
        let last = got(&mut replica.root(), &id).await.last_refusal.unwrap();
        (last.verdict() == Verdict::Disabled).then_some(last)
    })
    .await;
    assert_eq!((&*last.client_ip, last.missing_scopes.len()), ("", 0));
    assert!(last.refusal_time.unwrap().seconds >= refusal.refusal_time.unwrap().seconds);

    let mut listed = async |request: ListTokensRequest| {
        let page = root.list_tokens(ListTokensRequest { user_id: "ada".to_owned(), ..request }).await;
        let mut ids: Vec<_> = page.unwrap().into_inner().tokens.into_iter().map(|token| token.id).collect();
        ids.sort();
        ids
    };
    let since =
        |seconds: i64| ListTokensRequest { refused_after: Some(second(seconds)), ..Default::default() };
    assert_eq!(listed(since(0)).await, std::slice::from_ref(&id));
    assert_eq!(listed(since(32_503_680_000)).await, [""; 0]);
    let mut never = vec![idle, id];
    never.sort();
    assert_eq!(listed(ListTokensRequest { never_used: true, ..Default::default() }).await, never);
    let both = ListTokensRequest { never_used: true, ..since(0) };
    assert_eq!(listed(both).await.len(), 1);
}
