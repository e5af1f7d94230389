//! The list of a token's sessions, and their end from another one.

use super::links::link;
use super::{OWN, Person, cookie, hidden, sign_in, tokens_of};
use crate::support::client::created_with;
use crate::support::http::{post, send};
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_person_sees_the_sessions_of_the_token_and_ends_one_or_all() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let (first, second) = (Person::root(&one).await, Person::root(&two).await);
    let made = link(&mut one.root()).await;
    let third = post(one.console, "/link/confirm", &[OWN], &[("code", &made)]).await;
    let third = cookie(&third);
    let other = created_with(&mut one.root(), "acme", &["tokend:read"]).await.secret;
    let other = Person::of(one.console, &other).await;

    let page = first.get("/sessions").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.body.matches("<tr role=\"row\" id=\"s-").count(), 3, "{}", page.body);
    assert_eq!(page.body.matches("This session").count(), 1);
    assert_eq!((page.body.matches("A link").count(), page.body.matches("The secret").count()), (1, 2));
    assert_eq!(page.body.matches("data-label=\"From\">127.0.0.1<").count(), 3);
    assert_eq!(other.get("/sessions").await.body.matches("<tr role=\"row\" id=\"s-").count(), 1);

    // Another token's sessions are not in reach, nor is anything without the form's token.
    let theirs = other.get("/sessions").await.body;
    let id = theirs.split_once("id=\"s-").unwrap().1.split('"').next().unwrap().to_owned();
    assert_eq!(first.post("/sessions/end", &[("session", &id)]).await.status, 303);
    assert_eq!(other.get("/sessions").await.status, 200);
    for session in ["", &id] {
        let foreign = [("form_token", &*other.form_token), ("session", session)];
        let reply = post(one.console, "/sessions/end", &[OWN, ("cookie", &first.cookie)], &foreign).await;
        assert_eq!(reply.status, 400, "{session}");
    }
    for bad in ["x", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(first.post("/sessions/end", &[("session", bad)]).await.status, 303, "{bad}");
    }
    assert_eq!(first.get("/sessions").await.body.matches("id=\"s-").count(), 3);

    // The one that is second in use is ended from the first, at the other replica at once.
    let list = second.get("/sessions").await.body;
    let own = list.split("<tr role=\"row\" id=\"s-").find(|row| row.contains("This session")).unwrap();
    let own = own.split('"').next().unwrap();
    let reply = first.post("/sessions/end", &[("session", own)]).await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/sessions")));
    assert_eq!(second.get("/tokens").await.status, 401);
    let third_list = send(one.console, "GET", "/sessions", &[("cookie", &third)], "").await;
    assert_eq!(third_list.status, 200);

    let all = [("form_token", hidden(&third_list.body, "form_token"))];
    let reply = post(one.console, "/sessions/end", &[OWN, ("cookie", &third)], &all).await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/sign-in")));
    assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(first.get("/tokens").await.status, 401);
    assert_eq!(other.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn a_session_that_is_over_is_not_listed() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    sign_in(replica.console, &replica.installation.root_secret).await;
    let idle = "UPDATE console_sessions SET last_use_time = last_use_time - interval '30 minutes'
        WHERE open_time = (SELECT max(open_time) FROM console_sessions)";
    assert_eq!(replica.installation.database.execute(idle).await, 1);
    assert_eq!(person.get("/sessions").await.body.matches("<tr role=\"row\" id=\"s-").count(), 1);
}

#[tokio::test]
async fn root_sees_and_ends_the_sessions_of_another_token_and_nobody_else_does() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await;
    let id = admin.token.unwrap().id;
    let (one, two) =
        (Person::of(replica.console, &admin.secret).await, Person::of(replica.console, &admin.secret).await);
    let own = tokens_of(&replica, "root").await.remove(0).id;
    let path = format!("/sessions?token={id}");

    // A token that is not root reaches its own alone.
    assert_eq!(one.get(&path).await.body.matches("id=\"s-").count(), 2);
    assert_eq!(one.get(&format!("/sessions?token={own}")).await.status, 403);
    assert_eq!(one.post("/sessions/end", &[("token", &own)]).await.status, 403);
    assert_eq!(person.get("/sessions?token=x").await.status, 404);
    assert!(person.get(&format!("/tokens/{id}")).await.body.contains(&format!("href=\"{path}\"")));
    assert!(!one.get(&format!("/tokens/{id}")).await.body.contains(&format!("href=\"{path}\"")));

    let page = person.get(&path).await.body;
    assert_eq!(page.matches("id=\"s-").count(), 2, "{page}");
    assert!(!page.contains("This session"));
    let (_, session) = page.split_once("id=\"s-").unwrap();
    let session = session.split('"').next().unwrap();
    // An old sign-in has to be proven again.
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    replica.installation.database.execute(stale).await;
    let refused = person.post("/sessions/end", &[("token", &*id), ("session", session)]).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("id=\"proof-problem\""), "{}", refused.body);
    let secret = replica.installation.root_secret.clone();
    let fields = [("token", &*id), ("session", session), ("proof", &*secret)];
    let ended = person.post("/sessions/end", &fields).await;
    assert_eq!((ended.status, ended.header("location").unwrap()), (303, path.clone()), "{}", ended.body);
    let alive = [one.get("/tokens").await.status, two.get("/tokens").await.status];
    assert!(alive == [200, 401] || alive == [401, 200], "{alive:?}");

    assert_eq!(person.post("/sessions/end", &[("token", &id)]).await.status, 303);
    assert_eq!([one.get("/tokens").await.status, two.get("/tokens").await.status], [401, 401]);
    assert!(person.get(&path).await.body.contains("Nobody is signed in with it"));
    assert_eq!(person.get("/tokens").await.status, 200);
}
