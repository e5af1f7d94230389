//! The list of tokens in the console: its filters and pages, and what a row says.

use tokend::api::proto::DisableTokenRequest;

use super::Person;
use crate::support::client::{created, created_with, ordinary, revoked, rotated, rotation};
use crate::support::replica::Replica;

#[tokio::test]
async fn filters_and_pages_stand_in_the_address() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    for number in 0..60 {
        let user_id = if number % 2 == 0 { "ada l" } else { "bob" };
        let request = tokend::api::proto::CreateTokenRequest {
            name: format!("token {number:02}"),
            user_id: user_id.to_owned(),
            scopes: (0..64).map(|scope| format!("{}:{scope}", "s".repeat(90))).collect(),
            ..ordinary()
        };
        created(&mut root, request).await;
    }
    let rows = |page: &str| page.matches("<tr role=\"row\" id=").count();

    let mut path = "/tokens?user=ada+l&order=expires".to_owned();
    let mut seen = 0;
    let mut pages = 0;
    loop {
        let page = person.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.len() < 50_000, "{} bytes", page.body.len());
        assert!(!page.body.contains(">bob<") && page.body.contains("value=\"ada l\""));
        seen += rows(&page.body);
        pages += 1;
        let Some((_, next)) = page.body.split_once("rel=\"next\" href=\"") else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert_eq!((seen, pages), (30, 2));
    assert_eq!(rows(&person.get("/tokens?name=TOKEN+0").await.body), 10);
    assert_eq!(rows(&person.get("/tokens?created_before=2001-01-01").await.body), 0);
    assert_eq!(rows(&person.get("/tokens?size=100&page=").await.body), 25);
    let wrong = person.get("/tokens?created_after=soon").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("id=\"created_after-problem\""));
    assert_eq!(person.get("/tokens?page=x").await.status, 400);
    let unused = person.get("/tokens?name=token+0&never_used=1").await.body;
    assert!(rows(&unused) == 10 && unused.contains("name=\"never_used\" value=\"1\" checked"), "{unused}");
    assert_eq!(rows(&person.get("/tokens?refused_after=2001-01-01").await.body), 0);
}

/// Returns the row of a token.
fn row<'page>(page: &'page str, id: &str) -> &'page str {
    let (_, row) = page.split_once(&format!("id=\"t-{id}\"")).unwrap();
    row.split("</tr>").next().unwrap()
}

#[tokio::test]
async fn a_row_says_why_a_token_is_in_its_state_and_who_created_it() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await;
    let writer_id = writer.token.unwrap().id;
    let mut writer = replica.client(&writer.secret);
    let old = created(&mut writer, ordinary()).await.token.unwrap().id;
    let request = tokend::api::proto::RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds: 7_200, nanos: 0 }),
        ..rotation(&old)
    };
    let new = rotated(&mut root, request).await.token.unwrap().id;
    let ended = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    revoked(&mut root, &ended, "lost <here>").await;
    let off = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    let request = DisableTokenRequest { token_id: off.clone(), ..Default::default() };
    root.disable_token(request).await.unwrap();

    let page = person.get("/tokens").await.body;

    for (id, words) in [
        (&old, vec!["Superseded", "until 20", &writer_id[..8], "acme"]),
        (&new, vec!["Active", "by <bdi>"]),
        (&ended, vec!["Revoked", "lost &#60;here&#62;"]),
        (&off, vec!["Disabled", "just now"]),
    ] {
        for word in words {
            assert!(row(&page, id).contains(word), "{word}: {}", row(&page, id));
        }
    }
}
