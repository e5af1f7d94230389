//! The page of one token: what is stored of it, its family, its history; and a form like it.

use tokend::api::proto::{DisableTokenRequest, RotateTokenRequest, UpdateTokenRequest};

use super::Person;
use crate::support::client::{created, ordinary, revoked, rotated, rotation};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_page_shows_a_token_its_family_and_its_history_with_the_seals() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let request = tokend::api::proto::CreateTokenRequest {
        labels: [("team".to_owned(), "<pay>".to_owned())].into(),
        allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
        scopes: vec!["a:b".to_owned()],
        ..ordinary()
    };
    let old = created(&mut root, request).await.token.unwrap();
    let request = RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..rotation(&old.id)
    };
    let new = rotated(&mut root, request).await.token.unwrap().id;
    revoked(&mut root, &new, "lost \u{202e}here").await;

    let page = person.get(&format!("/tokens/{}", old.id)).await.body;
    for words in [
        "Superseded",
        "accepted until",
        "Rotated into",
        &new,
        "&#60;pay&#62;",
        "10.0.0.0/8",
        "a:b",
        "Created by",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let history = page.split_once("id=\"history\"").unwrap().1;
    assert!(history.find("Rotated").unwrap() < history.find("Created").unwrap(), "the newest first");
    assert!(history.contains("superseded by") && history.contains(&old.created_by), "{history}");

    let page = eventually("the events are sealed", async || {
        let page = person.get(&format!("/tokens/{new}")).await.body;
        (!page.contains("not sealed yet")).then_some(page)
    })
    .await;
    assert_eq!(page.matches(">sealed<").count(), 2);
    for words in ["Rotated from", &old.id, "lost \\u{202e}here", "accepted until"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("Revoke…") && !page.contains("Edit<"), "what is revoked stays so");
    assert!(page.contains("New like this one"));
}

#[tokio::test]
async fn a_long_history_has_pages() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    for number in 0..20 {
        let request = UpdateTokenRequest {
            token_id: id.clone(),
            name: format!("name {number:02} {}", "x".repeat(90)),
            labels: (0..32).map(|label| (format!("{label}-{}", "k".repeat(60)), "v".repeat(250))).collect(),
            update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned(), "labels".to_owned()] }),
            ..Default::default()
        };
        root.update_token(request).await.unwrap();
    }
    let page = person.get(&format!("/tokens/{id}")).await.body;
    assert!(page.len() < 50_000, "{} bytes", page.len());
    assert!(page.contains("name 19") && !page.contains("name 02"));
    let (_, older) = page.split_once(&format!("href=\"/tokens/{id}?events=")).unwrap();
    let token = older.split(['"', '#']).next().unwrap();
    let page = person.get(&format!("/tokens/{id}?events={token}")).await.body;
    assert!(page.contains("name 02") && page.contains("Newest"), "{page}");
    assert_eq!(person.get(&format!("/tokens/{id}?events=x")).await.status, 400);
}

#[tokio::test]
async fn a_form_like_another_token_has_what_a_link_may_choose() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let request = tokend::api::proto::CreateTokenRequest {
        name: "a&b \"c\"".to_owned(),
        organization_id: "acme".to_owned(),
        user_id: "ada & bob".to_owned(),
        scopes: vec!["reports:*".to_owned(), "tokend:write".to_owned()],
        labels: [("team".to_owned(), "a=b".to_owned())].into(),
        allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(prost_types::Duration {
            seconds: 30 * 86_400,
            nanos: 0,
        })),
        ..Default::default()
    };
    let mut root = replica.root();
    let id = created(&mut root, request.clone()).await.token.unwrap().id;
    let page = person.get(&format!("/tokens/{id}")).await.body;
    let (_, link) = page.split_once("href=\"/tokens/new?").unwrap();
    let link = link.split('"').next().unwrap().replace("&#38;", "&");
    assert!(!link.contains("tokend"), "{link}");
    let form = person.get(&format!("/tokens/new?{link}")).await;
    let form = person.get(&form.header("location").unwrap()).await.body;
    for words in [
        "value=\"a&#38;b &#34;c&#34;\"",
        "value=\"ada &#38; bob\"",
        "value=\"acme\"",
        ">reports:*</textarea>",
        ">team=a=b</textarea>",
        ">10.0.0.0/8</textarea>",
        "value=\"30d\" required checked",
    ] {
        assert!(form.contains(words), "{words}: {form}");
    }
    assert!(!form.contains("value=\"tokend:write\" checked"));

    let endless = tokend::api::proto::CreateTokenRequest {
        expiration: Some(tokend::api::proto::create_token_request::Expiration::NoExpiration(true)),
        ..request
    };
    let id = created(&mut root, endless).await.token.unwrap().id;
    let page = person.get(&format!("/tokens/{id}")).await.body;
    let (_, link) = page.split_once("href=\"/tokens/new?").unwrap();
    assert!(!link.split('"').next().unwrap().contains("expiration"));
}

#[tokio::test]
async fn every_generation_of_a_family_can_be_reached_from_every_other() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let mut ids = vec![created(&mut root, ordinary()).await.token.unwrap().id];
    for _ in 0..25 {
        let request = RotateTokenRequest {
            grace_period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            ..rotation(ids.last().unwrap())
        };
        ids.push(rotated(&mut root, request).await.token.unwrap().id);
    }
    let page = async |id: &str| person.get(&format!("/tokens/{id}")).await.body;
    let linked = |page: &str, id: &str| page.contains(&format!("href=\"/tokens/{id}#family\""));

    let middle = page(&ids[12]).await;
    assert!(middle.len() < 30_000, "{} bytes", middle.len());
    for (place, id) in ids.iter().enumerate() {
        // Ten on each side, and the next ones.
        assert_eq!(linked(&middle, id), (1..=23).contains(&place) && place != 12, "{place}");
    }
    assert_eq!((middle.matches("Rotated from").count(), middle.matches("Rotated into").count()), (11, 11));
    let first = page(&ids[0]).await;
    assert!(linked(&first, &ids[11]) && !linked(&first, &ids[12]) && !first.contains("Rotated from"));
    assert!(!page(&ids[25]).await.contains("Rotated into"));

    // What was deleted is said to be.
    let delete = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE family_id IS NOT NULL ORDER BY generation LIMIT 5)";
    assert_eq!(replica.installation.database.execute(delete).await, 5);
    let page = page(&ids[12]).await;
    assert!(!linked(&page, &ids[4]) && linked(&page, &ids[5]), "{page}");
    assert!(page.contains(&format!("<code>{}</code> <span class=\"exact\">deleted since", ids[4])), "{page}");
}

#[tokio::test]
async fn the_reason_of_disabling_is_found_behind_many_later_events() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let request =
        DisableTokenRequest { token_id: id.clone(), reason: "on <leave>".to_owned(), ..Default::default() };
    root.disable_token(request).await.unwrap();
    for number in 0..20 {
        let request = UpdateTokenRequest {
            token_id: id.clone(),
            name: format!("name {number}"),
            update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned()] }),
            ..Default::default()
        };
        root.update_token(request).await.unwrap();
    }

    let page = person.get(&format!("/tokens/{id}")).await.body;

    let (facts, history) = page.split_once("id=\"history\"").unwrap();
    assert!(facts.contains("<bdi>on &#60;leave&#62;</bdi>") && !history.contains("leave"), "{page}");
}
