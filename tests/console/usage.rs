//! The pages of usage: the chart of a token, and that of an organization with its tokens.

use tokend::api::proto::CreateTokenRequest;

use super::Person;
use crate::support::client::{created, created_with, ordinary, texts, verified};
use crate::support::eventually;
use crate::support::replica::Replica;

fn named(name: &str) -> CreateTokenRequest {
    CreateTokenRequest { organization_id: "acme".to_owned(), name: name.to_owned(), ..ordinary() }
}

#[tokio::test]
async fn verifications_are_drawn_for_a_token_and_for_an_organization() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let often = created(&mut root, named("<often>")).await;
    let idle = created(&mut root, named("idle")).await.token.unwrap().id;
    for _ in 0..4 {
        verified(&mut root, &often.secret, &[]).await;
        verified(&mut root, &often.secret, &["no:such"]).await;
        verified(&mut root, &often.secret, &["no:such"]).await;
    }
    let id = often.token.unwrap().id;
    let person = Person::root(&replica).await;
    let page = eventually("the counts are written", async || {
        let page = person.get("/usage?organization=acme").await.body;
        page.contains("4 valid</b> <b class=\"key refused\">8 refused").then_some(page)
    })
    .await;

    assert_eq!(page.matches("<path").count(), 2);
    for words in ["Scope missing</dt><dd>8", "&#60;often&#62;", "data-label=\"Refused\">8<", "tokend usage"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("Revoked</dt>"), "{page}");
    let page = person.get(&format!("/tokens/{id}")).await.body;
    assert!(page.contains("4 valid") && page.contains("<svg"), "{page}");
    let page = person.get(&format!("/tokens/{idle}")).await.body;
    assert!(page.contains("No verifications from") && !page.contains("<svg"), "{page}");
    let empty = person.get("/usage").await.body;
    assert!(empty.contains("No verifications from"), "{empty}");
    assert_eq!(person.get(&format!("/usage?organization={}", "x".repeat(201))).await.status, 400);
}

#[tokio::test]
async fn usage_is_shown_within_the_reach_of_the_session() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let reader = created_with(&mut root, "acme", &["tokend:read"]).await.secret;
    let own = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "bob".to_owned(),
        scopes: texts(&["tokend:self"]),
        ..ordinary()
    };
    let own = created(&mut root, own).await.secret;
    for _ in 0..3 {
        verified(&mut root, &reader, &[]).await;
        verified(&mut root, &own, &[]).await;
    }
    let (reader, bob) = (Person::of(replica.console, &reader).await, Person::of(replica.console, &own).await);
    let shown = async |person: &Person, words: &str| {
        let page = person.get("/usage").await;
        assert_eq!(page.status, 200);
        page.body.contains(words).then_some(())
    };
    eventually("all of the organization are shown", async || shown(&reader, "6 valid").await).await;
    eventually("the user's own are shown", async || shown(&bob, "3 valid").await).await;
    assert_eq!(reader.get("/usage?organization=other").await.status, 403);
    assert_eq!(bob.get("/usage?organization=other").await.status, 403);
    let verifier = created_with(&mut root, "acme", &["tokend:verify"]).await.secret;
    assert_ne!(super::sign_in(replica.console, &verifier).await.status, 303);
}

/// Returns what a page has between a heading and the end of its section.
fn section<'page>(page: &'page str, id: &str) -> &'page str {
    let (_, rest) = page.split_once(&format!("aria-labelledby=\"{id}\"")).unwrap();
    rest.split("</section>").next().unwrap()
}

/// Returns the list that a section leads to.
async fn list_of(person: &Person, page: &str, id: &str) -> String {
    let (_, link) = section(page, id).split_once("href=\"/tokens?").unwrap();
    let link = link.split('"').next().unwrap().replace("&#38;", "&");
    let list = person.get(&format!("/tokens?{link}")).await;
    assert_eq!(list.status, 200, "{link}: {}", list.body);
    list.body
}

#[tokio::test]
async fn tokens_that_need_a_look_are_named_with_a_link_to_the_list_of_all_of_them() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let refused = created(&mut root, named("<refused>")).await;
    let used = created(&mut root, named("<used>")).await;
    created(&mut root, named("<idle>")).await;
    created(&mut root, CreateTokenRequest { organization_id: "other".to_owned(), ..named("<foreign>") })
        .await;
    for _ in 0..3 {
        verified(&mut root, &refused.secret, &["no:such"]).await;
        verified(&mut root, &used.secret, &[]).await;
    }
    let person = Person::root(&replica).await;
    let page = eventually("the refusal, the uses and their counts are written", async || {
        let page = person.get("/usage?organization=acme").await.body;
        let written = section(&page, "refused").contains("&#60;refused&#62;")
            && !section(&page, "unused").contains("&#60;used&#62;")
            && page.contains("</dt><dd>3 valid, 3 refused</dd>");
        written.then_some(page)
    })
    .await;

    let named = |text: &str| {
        ["refused", "used", "idle", "foreign"].map(|name| text.contains(&format!("&#60;{name}&#62;")))
    };
    assert!(section(&page, "refused").contains("scope missing no:such"), "{page}");
    assert_eq!(named(section(&page, "refused")), [true, false, false, false]);
    assert_eq!(named(&list_of(&person, &page, "refused").await), [true, false, false, false]);
    assert_eq!(named(section(&page, "unused")), [true, false, true, false]);
    assert_eq!(named(&list_of(&person, &page, "unused").await), [true, false, true, false]);
    let other = person.get("/usage?organization=none").await.body;
    assert_eq!(named(&other), [false; 4]);
}
