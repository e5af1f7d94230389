//! Opening a portal session: for whom, by which link, and what its pages are.

use std::net::SocketAddr;

use prost_types::Duration;
use tokend::api::origin::Origin;
use tokend::api::proto::{
    CreatePortalSessionRequest, CreateTokenRequest, CreateTokenResponse, Grant, RevokePortalSessionsRequest,
};
use tokend::secret::LinkCode;
use tonic::Code;

use super::links::link;
use super::{OWN, Person, cookie, dump, hex, hidden};
use crate::support::client::{Client, created, created_with, ordinary, texts};
use crate::support::http::{Reply, post, send};
use crate::support::replica::{Installation, Replica};
use crate::support::status::{fields, refused};

/// Makes the token of a backend that signs users in, with `tokend:write` and a grant.
pub(super) async fn backend(
    replica: &Replica,
    organization_id: &str,
    grant: Option<Grant>,
) -> CreateTokenResponse {
    let request = CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: "backend".to_owned(),
        name: "frontend".to_owned(),
        scopes: texts(&["tokend:write"]),
        grant,
        ..ordinary()
    };
    created(&mut replica.root(), request).await
}

pub(super) fn session_for(user_id: &str, scopes: &[&str]) -> CreatePortalSessionRequest {
    CreatePortalSessionRequest { user_id: user_id.to_owned(), scopes: texts(scopes), ..Default::default() }
}

/// Makes a link to a portal session, which must succeed.
pub(super) async fn portal_link(client: &mut Client, user_id: &str, scopes: &[&str]) -> String {
    client.create_portal_session(session_for(user_id, scopes)).await.unwrap().into_inner().url
}

/// Sends the code of a link to one of the two forms.
pub(super) async fn send_link(address: SocketAddr, path: &str, link: &str) -> Reply {
    post(address, path, &[OWN], &[("code", link)]).await
}

/// Opens a portal session by its link, which must succeed.
pub(super) async fn by_link(replica: &Replica, link: &str) -> Person {
    let reply = send_link(replica.console, "/portal/open", link).await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/tokens")), "{}", reply.body);
    let mut person = Person { address: replica.console, cookie: cookie(&reply), form_token: String::new() };
    let list = person.get("/tokens").await.body;
    hidden(&list, "form_token").clone_into(&mut person.form_token);
    person
}

/// Makes and opens a portal session.
pub(super) async fn opened(replica: &Replica, client: &mut Client, user_id: &str, scopes: &[&str]) -> Person {
    let link = portal_link(client, user_id, scopes).await;
    by_link(replica, &link).await
}

#[tokio::test]
async fn a_link_opens_one_portal_session_and_only_by_the_second_form() {
    let replica = Replica::start().await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let made = portal_link(&mut backend, "ada", &["reports:*"]).await;
    let begin = format!("http://tokend.localhost:{}/portal#", replica.console.port());
    assert!(made.starts_with(&begin), "{made}");
    let (_, code) = made.split_once('#').unwrap();
    let sessions = "SELECT count(*) FROM console_sessions";
    let database = &replica.installation.database;

    // A scanner of mails loads the address, and may run its script, which sends the first form.
    for path in ["/portal".to_owned(), format!("/portal?code={code}"), format!("/portal/open?code={code}")] {
        for method in ["GET", "HEAD"] {
            let reply = send(replica.console, method, &path, &[], "").await;
            assert_eq!(reply.header("set-cookie"), None, "{method} {path}");
            assert!(!reply.body.contains(code), "{method} {path}");
        }
    }
    for _ in 0..2 {
        let looked = send_link(replica.console, "/portal", &made).await;
        assert_eq!((looked.status, looked.header("set-cookie")), (200, None), "{}", looked.body);
        assert!(looked.body.contains("Manage the tokens of <bdi>ada</bdi>?"), "{}", looked.body);
        assert!(!looked.body.contains("frontend") && !looked.body.contains("backend"), "{}", looked.body);
    }
    for path in ["/portal", "/portal/open"] {
        let elsewhere = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
        assert_eq!(post(replica.console, path, &elsewhere, &[("code", code)]).await.status, 403, "{path}");
    }
    assert_eq!(database.count(sessions).await, 0);

    let ada = by_link(&replica, &made).await;
    let list = ada.get("/tokens").await.body;
    assert!(list.contains("Signed in as <bdi>ada</bdi>") && list.contains("<h1>My tokens</h1>"), "{list}");
    assert!(!list.contains("frontend") && !list.contains("Administration"), "{list}");
    for path in ["/portal", "/portal/open"] {
        let again = send_link(replica.console, path, &made).await;
        assert_eq!((again.status, again.header("set-cookie")), (401, None), "{path}");
        assert!(again.body.contains("used already") && !again.body.contains(code), "{}", again.body);
    }
    assert_eq!(database.count(sessions).await, 1);
    let stored = dump(database).await;
    assert!(stored.contains(&hex(&LinkCode::parse(code).unwrap().hash())) && !stored.contains(code));
    let (_, key) = ada.cookie.split_once("=p.").unwrap();
    assert!(!stored.contains(key));
}

#[tokio::test]
async fn of_two_attempts_at_once_one_opens_the_session() {
    let replica = Replica::start().await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    for _ in 0..5 {
        let made = portal_link(&mut backend, "ada", &[]).await;
        let (one, two) = tokio::join!(
            send_link(replica.console, "/portal/open", &made),
            send_link(replica.console, "/portal/open", &made)
        );
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [303, 401]);
    }
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM console_sessions").await, 5);
}

#[tokio::test]
async fn a_link_of_one_kind_is_none_of_the_other() {
    let replica = Replica::start().await;
    let made = backend(&replica, "acme", None).await;
    let mut backend = replica.client(&made.secret);
    let (portal, sign_in) = (portal_link(&mut backend, "ada", &[]).await, link(&mut backend).await);

    // That of a portal session never signs in as the backend.
    for (path, link) in
        [("/link", &portal), ("/link/confirm", &portal), ("/portal", &sign_in), ("/portal/open", &sign_in)]
    {
        let reply = send_link(replica.console, path, link).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (401, None), "{path}");
        assert!(reply.body.contains("no such link"), "{path}: {}", reply.body);
    }

    by_link(&replica, &portal).await;
    assert_eq!(send_link(replica.console, "/link/confirm", &sign_in).await.status, 303);
    // Nor is it a proof for an act with all rights.
    let root = Person::root(&replica).await;
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    replica.installation.database.execute(stale).await;
    let vouched = portal_link(&mut replica.root(), "ada", &[]).await;
    let revoke = format!("/tokens/{}/revoke", made.token.unwrap().id);
    let reply = root.post(&revoke, &[("confirmation", "revoke"), ("proof", &vouched)]).await;
    assert!(reply.status == 403 && reply.body.contains("no such link"), "{}", reply.body);
}

#[tokio::test]
async fn a_link_lasts_a_minute_and_a_session_as_long_as_was_said_on_any_replica() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let database = &installation.database;
    let mut backend = one.client(&backend(&one, "acme", None).await.secret);
    let short = CreatePortalSessionRequest {
        ttl: Some(Duration { seconds: 30, nanos: 0 }),
        ..session_for("ada", &[])
    };
    let answer = backend.create_portal_session(short).await.unwrap().into_inner();
    assert_eq!(answer.link_expire_time, answer.session_expire_time);
    let made = portal_link(&mut backend, "bob", &[]).await;
    let as_said = "SELECT count(*) FROM console_links
        WHERE portal_user_id = 'bob' AND expire_time BETWEEN now() + interval '50 seconds' AND now() + interval '1 min'
            AND portal_expire_time - expire_time = interval '14 minutes'";
    assert_eq!(database.count(as_said).await, 1);

    let bob = by_link(&two, &made).await;
    assert_eq!(bob.at(&one).get("/tokens").await.status, 200);
    database.execute("UPDATE console_sessions SET last_use_time = now(), portal_expire_time = now()").await;
    for replica in [&one, &two] {
        let reply = bob.at(replica).get("/tokens").await;
        assert_eq!(reply.status, 401);
        assert!(!reply.body.contains("name=\"secret\""), "{}", reply.body);
    }

    database.execute("UPDATE console_links SET expire_time = now()").await;
    for path in ["/portal", "/portal/open"] {
        let reply = send_link(two.console, path, &answer.url).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (401, None));
        assert!(reply.body.contains("has expired"), "{}", reply.body);
    }
}

#[tokio::test]
async fn ten_unused_links_of_a_user_exist_and_other_users_have_their_own() {
    let replica = Replica::start().await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let bob = portal_link(&mut backend, "bob", &[]).await;
    let mut links = Vec::new();
    for _ in 0..11 {
        links.push(portal_link(&mut backend, "ada", &[]).await);
    }

    assert_eq!(send_link(replica.console, "/portal", &links[0]).await.status, 401);
    for made in links[1..].iter().chain([&bob]) {
        assert_eq!(send_link(replica.console, "/portal", made).await.status, 200);
    }
}

#[tokio::test]
async fn only_a_caller_that_may_issue_its_tokens_makes_a_portal_session() {
    let replica = Replica::start().await;
    for scope in ["tokend:self", "tokend:read", "tokend:verify", "reports:read"] {
        let mut caller = replica.client(&created_with(&mut replica.root(), "acme", &[scope]).await.secret);
        let outcome = caller.create_portal_session(session_for("ada", &[])).await;
        refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
        let request = RevokePortalSessionsRequest { user_id: "ada".to_owned(), ..Default::default() };
        let outcome = caller.revoke_portal_sessions(request).await;
        refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
    }
    let grant = Grant { scopes: texts(&["reports:*"]), users: texts(&["ada"]), ..Grant::default() };
    let mut lead = replica.client(&backend(&replica, "acme", Some(grant)).await.secret);
    for (user, scope) in [("bob", "reports:read"), ("ada", "orders:read"), ("backend", "reports:read")] {
        let outcome = lead.create_portal_session(session_for(user, &[scope])).await;
        refused(outcome, Code::PermissionDenied, "GRANT_EXCEEDED");
    }
    let of_bob = RevokePortalSessionsRequest { user_id: "bob".to_owned(), ..Default::default() };
    refused(lead.revoke_portal_sessions(of_bob).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    portal_link(&mut lead, "ada", &["reports:read"]).await;

    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let seconds = |seconds, nanos| CreatePortalSessionRequest {
        ttl: Some(Duration { seconds, nanos }),
        ..session_for("ada", &[])
    };
    for (request, field) in [
        (session_for("", &[]), "user_id"),
        (session_for("ada", &["tokend:read"]), "scopes"),
        (session_for("ada", &["reports:*", "tokend:self"]), "scopes"),
        (seconds(0, 0), "ttl"),
        (seconds(-1, 0), "ttl"),
        (seconds(900, 1), "ttl"),
        (seconds(i64::MAX, 0), "ttl"),
    ] {
        let outcome = backend.create_portal_session(request.clone()).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{request:?}");
    }
    backend.create_portal_session(seconds(900, 0)).await.unwrap();
}

#[tokio::test]
async fn a_portal_session_has_no_other_page_than_those_of_its_own_tokens() {
    let replica = Replica::start().await;
    let made = backend(&replica, "acme", None).await;
    let backend_id = made.token.unwrap().id;
    let mut backend = replica.client(&made.secret);
    let ada = opened(&replica, &mut backend, "ada", &["reports:*"]).await;

    for path in [
        "/policy",
        "/policy?organization=acme",
        "/audit",
        "/audit/export",
        "/find",
        "/why",
        "/sessions",
        "/usage",
        &format!("/sessions?token={backend_id}"),
        "/tokens/user?user=ada",
    ] {
        let reply = ada.get(path).await;
        assert_eq!(reply.status, if path == "/audit/export" { reply.status.max(403) } else { 403 }, "{path}");
        assert!(!reply.body.contains(&backend_id), "{path}");
    }
    let end = ada.post("/sessions/end", &[("token", &backend_id)]).await;
    assert_eq!(end.status, 403, "{}", end.body);

    // Signing out leads to no page that asks for a secret.
    let out = ada.post("/sign-out", &[]).await;
    assert_eq!((out.status, out.header("location").as_deref()), (303, Some("/portal")));
    assert_eq!(ada.get("/tokens").await.status, 401);
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM console_sessions").await, 0);
}

#[tokio::test]
async fn in_a_frame_only_a_portal_session_counts_and_only_listed_origins_show_it() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.console_embedders = vec![Origin::parse("https://app.example.org").unwrap()];
    let (replica, unlisted) =
        (installation.serve(config).await, installation.serve(installation.config()).await);
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let made = portal_link(&mut backend, "ada", &[]).await;
    let frame = [("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-origin")];
    let framing = |reply: &Reply| {
        let policy = reply.header("content-security-policy").unwrap();
        let ancestors = policy.split("; ").find(|part| part.starts_with("frame-ancestors")).unwrap();
        (ancestors.to_owned(), reply.header("x-frame-options"))
    };
    let (listed, nobody) = (
        ("frame-ancestors https://app.example.org".to_owned(), None),
        ("frame-ancestors 'none'".to_owned(), Some("DENY".to_owned())),
    );

    let reply = post(replica.console, "/portal/open", &frame, &[("code", &made)]).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
    let set = reply.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=None; Secure; Partitioned"), "{set}");
    let framed = cookie(&reply);
    assert!(framed.starts_with("tokend-portal-"), "{framed}");
    let as_seen = async |replica: &Replica, path: &str, headers: &[(&str, &str)], cookie: &str| {
        send(replica.console, "GET", path, &[headers, &[("cookie", cookie)]].concat(), "").await
    };
    for path in ["/portal", "/tokens", "/tokens/new"] {
        let reply = as_seen(&replica, path, &frame, &framed).await;
        assert!(reply.status < 400, "{path}");
        assert_eq!(framing(&reply), listed, "{path}");
    }
    for path in ["/sign-in", "/link", "/audit", "/sessions", "/policy", "/nowhere"] {
        assert_eq!(framing(&as_seen(&replica, path, &frame, &framed).await), nobody, "{path}");
    }
    // Outside of a frame, or from another site, the cookie counts for nothing.
    let elsewhere = [("sec-fetch-dest", "empty"), ("sec-fetch-site", "cross-site")];
    for headers in [&[("sec-fetch-dest", "document")][..], &elsewhere, &[]] {
        let reply = as_seen(&replica, "/tokens", headers, &framed).await;
        assert_eq!(framing(&reply), nobody, "{headers:?}");
        assert!(
            !reply.body.contains("My tokens") && !reply.body.contains("ada"),
            "{headers:?}: {}",
            reply.body
        );
    }
    // Nor does an administrator's session count in a frame, by whichever cookie.
    let root = Person::root(&replica).await;
    let (_, key) = root.cookie.split_once('=').unwrap();
    let planted = format!("{}={key}", framed.split_once('=').unwrap().0);
    for cookie in [&root.cookie, &planted] {
        let reply = as_seen(&replica, "/tokens", &frame, cookie).await;
        assert_eq!(reply.status, 401, "{cookie}");
        assert!(
            !reply.body.contains("bootstrap") && !reply.body.contains("name=\"secret\""),
            "{}",
            reply.body
        );
    }
    // Where no origin is listed, nobody shows anything.
    for path in ["/portal", "/tokens"] {
        assert_eq!(framing(&as_seen(&unlisted, path, &frame, &framed).await), nobody, "{path}");
    }
}
