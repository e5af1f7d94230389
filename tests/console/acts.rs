//! What is done with one token in the console: revoking, changing, disabling, and what is said of it afterwards.

use tokend::api::proto::{TokenState, Verdict};

use super::{Person, done, hidden, tokens_of};
use crate::support::client::{created_with, revoked, verified};
use crate::support::replica::Replica;
use crate::tokens::get::got;

#[tokio::test]
async fn a_token_is_revoked_with_a_reason_and_a_typed_confirmation() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let created = created_with(&mut replica.root(), "acme", &["a:b"]).await;
    let id = created.token.unwrap().id;
    let path = format!("/tokens/{id}/revoke");
    let mut root = replica.root();
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Valid);
    assert!(person.get(&path).await.body.contains("never undone"));

    for confirmation in ["", "yes", "revoke it"] {
        let reply = person.post(&path, &[("reason", "left"), ("confirmation", confirmation)]).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("id=\"confirmation-problem\"") && reply.body.contains("value=\"left\""));
    }
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Valid);

    let reply = person.post(&path, &[("reason", "left <us>"), ("confirmation", " Revoke ")]).await;
    let shown = done(&person, &reply).await;
    assert!(shown.contains("Refused everywhere from") && shown.contains("data-effective=\"20"), "{shown}");
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Revoked);
    let token = person.get(&format!("/tokens/{id}")).await.body;
    assert!(token.contains("left &#60;us&#62;") && token.contains("Revoked") && !token.contains("Revoke…"));
    // It stays in the list.
    assert!(person.get("/tokens?state=revoked").await.body.contains(&format!("id=\"t-{id}\"")));
    assert!(!person.get("/tokens?state=active").await.body.contains(&format!("id=\"t-{id}\"")));
    assert_eq!(person.post(&path, &[("confirmation", "revoke")]).await.status, 303, "again is no error");

    // The last root token is the one that the person is signed in with.
    let own = tokens_of(&replica, "root").await.remove(0);
    assert_eq!(own.state(), TokenState::Active);
    let reply = person.post(&format!("/tokens/{}/revoke", own.id), &[("confirmation", "revoke")]).await;
    assert_eq!(reply.status, 409);
    assert!(reply.body.contains("Nothing was revoked"), "{}", reply.body);
    assert_eq!(person.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn a_change_saves_what_differs_and_undoes_nobody_elses() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let token = created_with(&mut root, "acme", &["a:b"]).await.token.unwrap();
    let path = format!("/tokens/{}/edit", token.id);
    let form = person.get(&path).await.body;
    assert!(form.contains("As it is:") && form.contains(">a:b</textarea>"), "{form}");
    let version = hidden(&form, "version").to_owned();
    let fields = |name: &'static str| {
        [("version", version.clone()), ("expiration", "keep".to_owned()), ("scopes", "a:b".to_owned())]
            .into_iter()
            .chain([("name", name.to_owned()), ("labels", "team=x\r\nb=".to_owned())])
            .chain([("networks", "10.0.0.0/8".to_owned())])
            .collect::<Vec<_>>()
    };
    let sent = fields("desk");
    let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, &**value)).collect();

    let reply = person.post(&path, &sent).await;
    let shown = done(&person, &reply).await;
    assert!(shown.contains("Saved. Every replica judges by it from"), "{shown}");
    let changed = got(&mut root, &token.id).await;
    assert_eq!((&*changed.name, changed.labels.len()), ("desk", 2));
    assert_eq!((&changed.scopes, &changed.expire_time), (&token.scopes, &token.expire_time));
    assert_eq!(changed.allowed_cidrs, ["10.0.0.0/8"]);

    // The form of before would undo that: what was changed in it stays, the rest is as the token has it now.
    let stale = [
        ("version", &*version),
        ("expiration", "keep"),
        ("name", "phone"),
        ("scopes", "a:b c:d"),
        ("labels", ""),
        ("networks", ""),
    ];
    let stale = person.post(&path, &stale).await;
    assert_eq!(stale.status, 409);
    for words in [
        "Somebody else changed this token",
        "value=\"phone\"",
        "id=\"name-problem\">Somebody else changed this. Now it is: desk",
        ">a:b c:d</textarea>",
        ">10.0.0.0/8</textarea>",
        ">b=\nteam=x</textarea>",
    ] {
        assert!(stale.body.contains(words), "{words}: {}", stale.body);
    }
    assert_eq!(stale.body.matches("class=\"problem\"").count(), 1, "{}", stale.body);
    assert_eq!(got(&mut root, &token.id).await, changed);
    let version = hidden(&stale.body, "version").to_owned();
    let same = [
        ("version", &*version),
        ("expiration", "keep"),
        ("name", "desk"),
        ("scopes", "a:b"),
        ("labels", "b=\nteam=x"),
        ("networks", "10.0.0.0/8"),
    ];
    let same = person.post(&path, &same).await;
    assert_eq!(same.status, 400);
    assert!(same.body.contains("Nothing differs"));
    let wrong = [
        ("version", &*version),
        ("expiration", "keep"),
        ("name", "\u{202e}x"),
        ("scopes", "A"),
        ("labels", "x"),
        ("networks", "y"),
    ];
    let wrong = person.post(&path, &wrong).await;
    for field in ["name", "scopes", "labels", "networks"] {
        assert!(wrong.body.contains(&format!("id=\"{field}-problem\"")), "{field}");
    }
    let past = [
        ("version", &*version),
        ("expiration", "date"),
        ("date", "2001-01-01"),
        ("name", "desk"),
        ("scopes", "a:b"),
        ("labels", "b=\nteam=x"),
        ("networks", "10.0.0.0/8"),
    ];
    let past = person.post(&path, &past).await;
    assert!(past.body.contains("id=\"date-problem\""), "{}", past.body);
    assert_eq!(got(&mut root, &token.id).await, changed);
}

#[tokio::test]
async fn a_token_is_disabled_with_a_reason_and_enabled_again() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let token = created_with(&mut root, "acme", &["a:b"]).await;
    let id = token.token.unwrap().id;
    let path = |act: &str| format!("/tokens/{id}/{act}");
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Valid);
    assert!(person.get(&path("disable")).await.body.contains("until somebody enables it again"));

    let reply = person.post(&path("disable"), &[("reason", "on leave")]).await;
    let shown = done(&person, &reply).await;
    for words in ["Refused everywhere from", "data-effective", "Disabled", "on leave", "Enable…"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Disabled);
    assert_eq!(person.post(&path("disable"), &[]).await.status, 303, "again is no error");

    let reply = person.post(&path("enable"), &[]).await;
    assert!(done(&person, &reply).await.contains("Accepted everywhere from"));
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Valid);

    revoked(&mut root, &id, "").await;
    let reply = person.post(&path("disable"), &[]).await;
    assert_eq!(reply.status, 409);
    assert!(reply.body.contains("revoked, which is never undone"));
    let own = tokens_of(&replica, "root").await.remove(0);
    let reply = person.post(&format!("/tokens/{}/disable", own.id), &[]).await;
    assert_eq!(reply.status, 409, "the last root token");
}

#[tokio::test]
async fn what_a_page_says_of_an_act_is_signed_for_the_session() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let token = created_with(&mut replica.root(), "acme", &["a:b"]).await.token.unwrap().id;
    let other = created_with(&mut replica.root(), "acme", &["a:b"]).await.token.unwrap().id;
    let reply = person.post(&format!("/tokens/{token}/disable"), &[]).await;
    let shown = reply.header("location").unwrap();
    assert!(person.get(&shown).await.body.contains("Refused everywhere"));

    let moved = shown.replace(&token, &other);
    let acted = shown.replace("done=disabled", "done=enabled");
    let (before, after) = shown.split_once("from=").unwrap();
    let dated = format!("{before}from=9{after}");
    for forged in [moved, acted, dated] {
        let page = person.get(&forged).await;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("data-effective"), "{forged}");
    }
    let stranger = Person::root(&replica).await;
    assert!(!stranger.get(&shown).await.body.contains("data-effective"), "it is this session's");
}
