//! The page of the audit log and its export.

use std::collections::BTreeSet;

use serde_json::Value;
use tokend::api::proto::{
    Attribution, CreateTokenRequest, ListTokenEventsRequest, TokenEventKind, UpdateTokenRequest,
};

use super::Person;
use crate::support::client::{created, created_with, ordinary, revoked};
use crate::support::http::send;
use crate::support::replica::Replica;

fn rows(page: &str) -> usize {
    page.matches("<tr role=\"row\">").count().saturating_sub(1)
}

#[tokio::test]
async fn filters_of_the_audit_log_stand_in_its_address_and_hold_over_all_pages() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let user_id = if number % 2 == 0 { "ada <l>" } else { "bob" }.to_owned();
        let labels = (0..32).map(|label| (format!("label-{label}"), "x".repeat(200))).collect();
        let made = created(&mut root, CreateTokenRequest { user_id, labels, ..ordinary() }).await;
        ids.push(made.token.unwrap().id);
    }
    for id in &ids[..30] {
        revoked(&mut root, id, &"r".repeat(500)).await;
    }
    // Long values on both sides of a change.
    for id in &ids[30..] {
        let token = tokend::api::proto::Token {
            id: id.clone(),
            labels: (0..32).map(|label| (format!("other-{label}"), "y".repeat(200))).collect(),
            ..Default::default()
        };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
        root.update_token(update(token, update_mask)).await.unwrap();
    }

    let mut path = "/audit?user=ada+%3Cl%3E&kind=revoked&kind=updated".to_owned();
    let (mut seen, mut pages) = (0, 0);
    let mut tokens = BTreeSet::new();
    loop {
        let page = person.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.len() < 50_000, "{} bytes", page.body.len());
        assert!(!page.body.contains("<strong>Created</strong>") && !page.body.contains(">bob<"));
        assert!(page.body.contains("value=\"ada &#60;l&#62;\""), "{}", page.body);
        seen += rows(&page.body);
        tokens.extend(ids.iter().filter(|id| page.body.contains(&***id)).cloned());
        pages += 1;
        let Some((_, next)) = page.body.split_once("rel=\"next\" href=\"") else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert_eq!((seen, tokens.len()), (20, 20));
    assert!(pages >= 1);

    let count = async |query: &str| rows(&person.get(&format!("/audit?{query}")).await.body);
    assert_eq!(count(&format!("token={}", ids[0])).await, 2);
    assert_eq!(count("actor=bootstrap").await, 1);
    assert_eq!(count("until=2001-01-01").await, 0);
    assert_eq!(count("from=2001-01-01T00:00&kind=purged").await, 0);
    assert_eq!(count("").await, 25);
    let wrong = person.get("/audit?token=x&actor=somebody&from=soon&kind=burned").await;
    assert_eq!(wrong.status, 400);
    for field in ["token", "actor", "from"] {
        assert!(wrong.body.contains(&format!("id=\"{field}-problem\"")), "{field}");
    }
    crate::support::eventually("an event is sealed", async || {
        person.get("/audit").await.body.contains(">Sealed<").then_some(())
    })
    .await;
}

fn update(
    token: tokend::api::proto::Token,
    update_mask: Option<prost_types::FieldMask>,
) -> UpdateTokenRequest {
    UpdateTokenRequest { token_id: token.id.clone(), labels: token.labels, update_mask, ..Default::default() }
}

#[tokio::test]
async fn the_export_has_every_event_that_the_filters_select_and_no_other() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let id = created_with(&mut root, "acme", &["a:b"]).await.token.unwrap().id;
    revoked(&mut root, &id, "left \"us\"").await;
    let copies = "INSERT INTO token_events
            (event_time, kind, token_id, organization_id, user_id, actor, changes)
        SELECT event_time, kind, token_id, organization_id, user_id, actor, changes
        FROM token_events, generate_series(1, 1200) WHERE organization_id = 'acme'";
    assert_eq!(replica.installation.database.execute(copies).await, 2400);

    for (query, kinds) in [("", vec![]), ("?kind=revoked&user=ada", vec![TokenEventKind::Revoked])] {
        let reply = person.get(&format!("/audit/events.jsonl{query}")).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-disposition").unwrap(), "attachment; filename=\"audit.jsonl\"");
        assert_eq!(reply.header("cache-control").unwrap(), "no-store");
        let lines: Vec<Value> = reply
            .body
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut request = ListTokenEventsRequest {
            kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
            user_id: if query.is_empty() { String::new() } else { "ada".to_owned() },
            page_size: 1000,
            ..Default::default()
        };
        let mut expected = Vec::new();
        loop {
            let page = root.list_token_events(request.clone()).await.unwrap().into_inner();
            expected.extend(page.events);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(lines.len(), expected.len(), "{query}");
        for (line, event) in lines.iter().zip(&expected) {
            assert_eq!(line["eventId"], event.event_id.to_string());
            assert_eq!(line["kind"], event.kind().as_str_name());
            assert_eq!(line["tokenId"], event.token_id);
            assert_eq!(line["ownerKind"], event.owner_kind().as_str_name());
            assert_eq!(line["eventTime"], event.event_time.unwrap().to_string());
            assert_eq!(line["actor"], event.actor);
            let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            assert_eq!(text("actingUser"), event.acting_user);
            let known = Some(event.attribution()).filter(|known| *known != Attribution::Unspecified);
            assert_eq!(text("attribution"), known.map_or("", |known| known.as_str_name()));
            let changes = line["changes"].as_array().map_or(0, Vec::len);
            assert_eq!(changes, event.changes.len());
            for (change, expected) in line["changes"].as_array().into_iter().flatten().zip(&event.changes) {
                assert_eq!(change["field"], expected.field);
                assert_eq!(change.get("newValue").and_then(Value::as_str).unwrap_or(""), expected.new_value);
            }
        }
    }
    assert_eq!(person.get("/audit/events.jsonl?from=soon").await.status, 400);
}

#[tokio::test]
async fn the_audit_log_shows_and_exports_what_the_token_may_read() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let foreign = created_with(&mut root, "other", &[]).await.token.unwrap().id;
    let reader = created_with(&mut root, "acme", &["tokend:read"]).await;
    let own = reader.token.unwrap().id;
    let reader = Person::of(replica.console, &reader.secret).await;
    for path in ["/audit", "/audit/events.jsonl"] {
        let page = reader.get(path).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(&own) && !page.body.contains(&foreign), "{path}");
        assert_eq!(reader.get(&format!("{path}?organization=other")).await.status, 403, "{path}");
        assert_eq!(send(replica.console, "GET", path, &[], "").await.status, 401, "{path}");
    }
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let cookie = super::cookie(&super::sign_in(replica.console, &writer).await);
    for path in ["/audit", "/audit/events.jsonl"] {
        assert_eq!(
            send(replica.console, "GET", path, &[("cookie", &cookie)], "").await.status,
            403,
            "{path}"
        );
    }
}
