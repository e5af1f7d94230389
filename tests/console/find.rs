//! "Is this ours?" and "Why?": what a text has of this installation, and the verdict on a token with the rule that
//! decided.

use tokend::api::proto::{CreateTokenRequest, DisableTokenRequest, ListTokensRequest};

use super::{OWN, Person, dump, tokens_of};
use crate::support::client::{created, created_with, forged, ordinary, revoked, texts, unknown_id};
use crate::support::http::{post, send};
use crate::support::replica::Replica;

/// Returns the rows of the page's table.
fn rows(page: &str) -> Vec<String> {
    let rows = page.split("<tr role=\"row\">").skip(2);
    rows.map(|row| row.split("</tr>").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn secrets_and_ids_in_any_text_are_found_and_the_text_is_kept_nowhere() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let (good, ended) =
        (created_with(&mut root, "acme", &[]).await, created_with(&mut root, "acme", &[]).await);
    let (good_id, ended_id) = (good.token.unwrap().id, ended.token.unwrap().id);
    revoked(&mut root, &ended_id, "").await;
    let stranger = forged(unknown_id());
    let imitation = forged(good_id.parse().unwrap());
    let cut = &created_with(&mut root, "acme", &[]).await.secret[..60];
    let canary = "canary-in-the-log-line";
    let log = format!(
        "{}\n10.0.0.1 - {canary} \"GET /?t={} HTTP/1.1\" 200\n{{\"id\":\"{ended_id}\",\"secret\":\"{}\"}}\n{stranger}\n{cut}…",
        "x".repeat(30_000),
        good.secret,
        ended.secret
    );

    let reply = person.post("/find", &[("text", &log)]).await;

    assert_eq!(reply.status, 200, "{}", reply.body);
    let found = rows(&reply.body);
    assert_eq!(found.len(), 4, "{}", reply.body);
    for (row, texts) in found.iter().zip([
        [&*good_id, "It is ours, and it is accepted", "Active", "/revoke\""],
        [&ended_id, "It is ours, and it is refused already", "Revoked", "ada"],
        [&stranger[5..27], "no such token that you can see", "Unknown", "Secret"],
        [&cut[5..27], "It is cut off or changed", "Part of a secret", "/revoke\""],
    ]) {
        for text in texts {
            assert!(row.contains(text), "{text}: {row}");
        }
    }
    assert!(!found[1].contains("/revoke\"") && !found[2].contains("/revoke\""));
    for hidden in [canary, &good.secret[30..], &ended.secret[30..], &cut[30..], "xxxx"] {
        assert!(!reply.body.contains(hidden), "{hidden}");
    }
    assert!(reply.body.len() < 50_000, "{} bytes", reply.body.len());
    let stored = dump(&replica.installation.database).await;
    assert!(!stored.contains(canary) && !stored.contains(&good.secret[30..]));
    // Looking is no use of a token.
    let unused =
        root.list_tokens(ListTokensRequest { user_id: "ada".to_owned(), ..Default::default() }).await;
    assert!(unused.unwrap().into_inner().tokens.iter().all(|token| token.last_use_time.is_none()));

    let reply = person.post("/find", &[("text", &imitation)]).await;
    assert!(rows(&reply.body)[0].contains("It is not genuine"), "{}", reply.body);
    let reply = person.post("/find", &[("text", &good_id)]).await;
    assert!(rows(&reply.body)[0].contains("an id is no secret"), "{}", reply.body);
    let reply = person.post("/find", &[("text", "nothing of interest")]).await;
    assert!(reply.body.contains("No secret and no id"), "{}", reply.body);
    let many: Vec<String> = (0..30).map(|_| unknown_id().to_string()).collect();
    let reply = person.post("/find", &[("text", &many.join("\n"))]).await;
    assert_eq!(rows(&reply.body).len(), 20);
    assert!(reply.body.contains("10 more were left out"), "{}", reply.body);
    assert!(reply.body.len() < 50_000, "{} bytes", reply.body.len());

    // Nothing is looked up by an address, without the form's token, or for a caller that may not read.
    assert_eq!(rows(&person.get(&format!("/find?text={good_id}")).await.body).len(), 0);
    let bare = [("text", &*good_id)];
    let reply = post(replica.console, "/find", &[OWN, ("cookie", &person.cookie)], &bare).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn a_person_finds_only_what_they_may_see() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let foreign = created_with(&mut root, "other", &[]).await;
    let reader = created_with(&mut root, "acme", &["tokend:read"]).await.secret;
    let own = created_with(&mut root, "acme", &[]).await;
    let reader = Person::of(replica.console, &reader).await;
    let foreign_id = foreign.token.unwrap().id;

    let text = format!("{} {}", foreign.secret, own.secret);
    let reply = reader.post("/find", &[("text", &text)]).await;
    let found = rows(&reply.body);
    assert!(
        found[0].contains("no such token that you can see") && !found[0].contains("other"),
        "{}",
        found[0]
    );
    assert!(found[1].contains("It is ours"), "{}", found[1]);
    assert!(!reply.body.contains("/revoke\""), "a reader may not revoke");
    for token in [&*foreign.secret, &foreign_id] {
        let reply = reader.post("/why", &[("token", token)]).await;
        assert!(reply.body.contains("no token that you can see has it"), "{}", reply.body);
        assert!(!reply.body.contains("other"), "{}", reply.body);
    }

    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let cookie = super::cookie(&super::sign_in(replica.console, &writer).await);
    for path in ["/find", "/why"] {
        assert_eq!(send(replica.console, "GET", path, &[("cookie", &cookie)], "").await.status, 403);
        assert_eq!(send(replica.console, "GET", path, &[], "").await.status, 401);
    }
}

#[tokio::test]
async fn why_names_the_verdict_of_the_engine_and_the_rule_that_decided() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let request = CreateTokenRequest {
        scopes: texts(&["reports:read"]),
        allowed_cidrs: texts(&["192.0.2.0/24"]),
        ..ordinary()
    };
    let bound = created(&mut root, request).await;
    let (ended, off) =
        (created_with(&mut root, "acme", &[]).await, created_with(&mut root, "acme", &[]).await);
    revoked(&mut root, &ended.token.as_ref().unwrap().id, "left at the <station>").await;
    let disable =
        DisableTokenRequest { token_id: off.token.as_ref().unwrap().id.clone(), ..Default::default() };
    root.disable_token(disable).await.unwrap();
    let late = created_with(&mut root, "acme", &[]).await;
    let past =
        "UPDATE tokens SET create_time = now() - interval '2 days', expire_time = now() - interval '1 day'
        WHERE id = (SELECT id FROM tokens ORDER BY create_time DESC, id DESC LIMIT 1)";
    assert_eq!(replica.installation.database.execute(past).await, 1);
    let wrong = forged(bound.token.as_ref().unwrap().id.parse().unwrap());
    let id = bound.token.as_ref().unwrap().id.clone();
    crate::support::eventually("the change is seen", async || {
        let reply = person.post("/why", &[("token", &late.secret)]).await;
        reply.body.contains("Refused: the token has expired").then_some(())
    })
    .await;

    // Which rule decided, counted from the first; none: it is accepted.
    for (token, scopes, address, word, decided) in [
        (&*bound.secret, "reports:read", "192.0.2.7", "Accepted", None),
        (&id, "reports:read", "192.0.2.7", "Accepted", None),
        (&bound.secret, "", "198.51.100.1", "may not be used from this address", Some(6)),
        (&id, "", "", "may not be used from this address", Some(6)),
        (&bound.secret, "reports:write", "192.0.2.7", "lacks a scope", Some(5)),
        (&off.secret, "", "", "is disabled", Some(4)),
        (&late.secret, "", "", "has expired", Some(3)),
        (&ended.secret, "", "", "is revoked", Some(2)),
        (&wrong, "", "", "no token that you can see has it", Some(1)),
        (&forged(unknown_id()), "", "", "no token that you can see has it", Some(1)),
        ("tokd_x", "", "", "not the text of a secret", Some(0)),
    ] {
        let fields = [("token", token), ("scopes", scopes), ("address", address)];
        let reply = person.post("/why", &fields).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.body.contains(word), "{word}: {}", reply.body);
        let rules = rows(&reply.body);
        assert_eq!(rules.len(), 7);
        for (place, rule) in rules.iter().enumerate() {
            let expected = match decided {
                Some(decided) if place == decided => ">No<",
                Some(decided) if place > decided => ">Not looked at<",
                _ => ">Yes<",
            };
            assert!(rule.contains(expected), "{word} {place}: {rule}");
        }
        assert!(token.len() < 30 || !reply.body.contains(&token[30..]), "the secret is shown nowhere");
        assert!(reply.body.contains("tokend token verify"));
    }
    let reply = person.post("/why", &[("token", &ended.secret)]).await;
    assert!(reply.body.contains("left at the &#60;station&#62;"), "{}", reply.body);
    let reply = person.post("/why", &[("token", &bound.secret), ("scopes", "a:b reports:read c:d")]).await;
    assert!(reply.body.contains("It lacks: a:b c:d"), "{}", reply.body);
    // Asking is no use of the token.
    let tokens = tokens_of(&replica, "ada").await;
    assert!(tokens.iter().all(|token| token.last_use_time.is_none()), "{tokens:?}");

    let wrong = [("token", ""), ("scopes", "NO"), ("address", "here")];
    let reply = person.post("/why", &wrong).await;
    assert_eq!(reply.status, 400);
    for field in ["token", "scopes", "address"] {
        assert!(reply.body.contains(&format!("id=\"{field}-problem\"")), "{field}");
    }
    let linked = person.get(&format!("/why?token={id}")).await.body;
    assert!(linked.contains(&format!("value=\"{id}\"")), "{linked}");
    assert!(!person.get(&format!("/why?token={}", bound.secret)).await.body.contains(&bound.secret[30..]));
}
