//! Signing in by a link: once, within a minute, on any replica, and by the second form alone.

use secrecy::ExposeSecret as _;
use tokend::api::proto::{CreateConsoleLinkRequest, ListTokensRequest};
use tokend::secret::LinkCode;
use tonic::Code;

use super::{OWN, Person, cookie, dump, hex, hidden};
use crate::support::client::{Client, created_with, revoked};
use crate::support::http::{Reply, post, send};
use crate::support::replica::{Installation, Replica};
use crate::support::status::refused;

/// Makes a link; returns it.
pub(crate) async fn link(client: &mut Client) -> String {
    client.create_console_link(CreateConsoleLinkRequest {}).await.unwrap().into_inner().url
}

fn code(link: &str) -> &str {
    link.split_once('#').unwrap().1
}

/// Sends a code to one of the two forms.
async fn send_code(replica: &Replica, path: &str, code: &str) -> Reply {
    post(replica.console, path, &[OWN], &[("code", code)]).await
}

async fn sessions(replica: &Replica) -> i64 {
    replica.installation.database.count("SELECT count(*) FROM console_sessions").await
}

#[tokio::test]
async fn a_link_signs_in_once_and_only_by_the_second_form() {
    let replica = Replica::start().await;
    let made = link(&mut replica.root()).await;
    let begin = format!("http://tokend.localhost:{}/link#", replica.console.port());
    assert!(made.starts_with(&begin), "{made}");
    let code = code(&made);

    // What opens links sees no code, and uses none, whatever it adds to the address.
    for (method, path) in [("GET", "/link".to_owned()), ("HEAD", "/link".to_owned())] {
        assert_eq!(send(replica.console, method, &path, &[], "").await.status, 200, "{method}");
    }
    for path in [format!("/link?code={code}"), format!("/link/confirm?code={code}")] {
        let reply = send(replica.console, "GET", &path, &[], "").await;
        assert_eq!(reply.header("set-cookie"), None, "{path}");
        assert!(!reply.body.contains(code), "{path}");
    }
    // Looking says as whom.
    for _ in 0..2 {
        let looked = send_code(&replica, "/link", &made).await;
        assert_eq!((looked.status, looked.header("set-cookie")), (200, None), "{}", looked.body);
        assert!(looked.body.contains("Sign in as <bdi>root</bdi>?"), "{}", looked.body);
        assert_eq!(hidden(&looked.body, "code"), made);
    }
    assert_eq!(sessions(&replica).await, 0);
    // Another site's page can send neither form.
    for path in ["/link", "/link/confirm"] {
        let elsewhere = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
        assert_eq!(post(replica.console, path, &elsewhere, &[("code", code)]).await.status, 403, "{path}");
    }

    let confirmed = send_code(&replica, "/link/confirm", &made).await;
    assert_eq!((confirmed.status, confirmed.header("location").as_deref()), (303, Some("/tokens")));
    let session = cookie(&confirmed);
    let list = send(replica.console, "GET", "/tokens", &[("cookie", &session)], "").await;
    assert_eq!(list.status, 200);
    assert!(list.body.contains("Signed in with <bdi>bootstrap</bdi>"));

    for path in ["/link", "/link/confirm"] {
        let again = send_code(&replica, path, code).await;
        assert_eq!((again.status, again.header("set-cookie")), (401, None), "{path}");
        assert!(again.body.contains("used already") && !again.body.contains(code), "{}", again.body);
    }
    assert_eq!(sessions(&replica).await, 1);
    let stored = dump(&replica.installation.database).await;
    assert!(stored.contains(&hex(&LinkCode::parse(code).unwrap().hash())));
    assert!(!stored.contains(code));
}

#[tokio::test]
async fn of_two_attempts_at_once_one_signs_in() {
    let replica = Replica::start().await;
    for _ in 0..5 {
        let made = link(&mut replica.root()).await;
        let (one, two) = tokio::join!(
            send_code(&replica, "/link/confirm", &made),
            send_code(&replica, "/link/confirm", &made)
        );
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [303, 401]);
    }
    assert_eq!(sessions(&replica).await, 5);
}

#[tokio::test]
async fn a_link_lasts_a_minute_and_any_replica_takes_it() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let database = &installation.database;
    let made = link(&mut one.root()).await;
    let expiring = "SELECT count(*) FROM console_links
        WHERE expire_time BETWEEN now() + interval '50 seconds' AND now() + interval '60 seconds'";
    assert_eq!(database.count(expiring).await, 1);
    assert_eq!(send_code(&two, "/link", &made).await.status, 200);
    database.execute("UPDATE console_links SET expire_time = now()").await;

    for path in ["/link", "/link/confirm"] {
        let reply = send_code(&two, path, &made).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (401, None));
        assert!(reply.body.contains("has expired"), "{}", reply.body);
    }

    let made = link(&mut one.root()).await;
    one.shut_down().outcome().await.unwrap();
    assert_eq!(send_code(&two, "/link/confirm", &made).await.status, 303);
}

#[tokio::test]
async fn a_token_has_ten_unused_links_and_the_oldest_ends() {
    let replica = Replica::start().await;
    let mut links = Vec::new();
    for _ in 0..11 {
        links.push(link(&mut replica.root()).await);
    }
    let other = link(&mut replica.caller("acme", &["tokend:read"]).await).await;

    assert_eq!(send_code(&replica, "/link", &links[0]).await.status, 401);
    for made in links[1..].iter().chain([&other]) {
        assert_eq!(send_code(&replica, "/link", made).await.status, 200);
    }
}

#[tokio::test]
async fn a_link_gives_no_more_than_its_token_has() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for scopes in [&["reports:read"][..], &["tokend:verify", "tokend:verify:any"]] {
        let mut caller = replica.caller("acme", scopes).await;
        let outcome = caller.create_console_link(CreateConsoleLinkRequest {}).await;
        refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
    }
    let reader = created_with(&mut root, "acme", &["tokend:read"]).await;
    let (id, mut caller) = (reader.token.unwrap().id, replica.client(&reader.secret));
    let (made, late) = (link(&mut caller).await, link(&mut caller).await);
    let confirmed = send_code(&replica, "/link/confirm", &made).await;
    let session = [("cookie", &*cookie(&confirmed))];
    assert_eq!(send(replica.console, "GET", "/tokens/new", &session, "").await.status, 403);
    let list = send(replica.console, "GET", "/tokens", &session, "").await.body;
    assert!(list.contains(&id) && !list.contains("bootstrap"));

    revoked(&mut root, &id, "").await;

    assert_eq!(send(replica.console, "GET", "/tokens", &session, "").await.status, 401);
    for path in ["/link", "/link/confirm"] {
        let reply = send_code(&replica, path, &late).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (401, None));
        assert!(reply.body.contains("revoked"), "{}", reply.body);
    }
}

#[tokio::test]
async fn guesses_at_links_are_slowed() {
    let replica = Replica::start().await;
    for text in ["", "x", "tokd_wrong", "#"] {
        let reply = send_code(&replica, "/link", text).await;
        assert_eq!(reply.status, 401);
        assert!(reply.body.contains("not the code of a link"), "{}", reply.body);
    }
    let failed = async || {
        let metrics = crate::support::http::get(replica.http, "/metrics").await.1;
        let line = metrics.lines().find(|line| line.starts_with("tokend_authentication_failures_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    let before = failed().await;
    let began = std::time::Instant::now();
    for number in 0..16_u8 {
        let guess = LinkCode::generate(&mut tokend::clock::randomness()).unwrap().render();
        let path = if number % 2 == 0 { "/link" } else { "/link/confirm" };
        let reply = send_code(&replica, path, guess.expose_secret()).await;
        assert_eq!(reply.status, 401);
        assert!(reply.body.contains("no such link"), "{}", reply.body);
    }
    // Ten at once, then 20, 40, 80, 160, 320 and 640 ms; one is forgotten every two seconds.
    assert!(began.elapsed() > std::time::Duration::from_millis(300), "{:?}", began.elapsed());
    assert!(failed().await >= before + 16.0);
    // Who has a link waits for nobody's failures.
    let made = link(&mut replica.root()).await;
    assert_eq!(send_code(&replica, "/link/confirm", &made).await.status, 303);
}

#[tokio::test]
async fn a_link_is_the_proof_that_is_asked_for_once_more() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let other_root = created_with(&mut root, "acme", &["tokend:root"]).await.secret;
    let target = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    let revoke = format!("/tokens/{target}/revoke");
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    let database = &replica.installation.database;
    assert_eq!(database.execute(stale).await, 1);
    let (own, others) = (link(&mut root).await, link(&mut replica.client(&other_root)).await);
    let prove =
        async |proof: &str| person.post(&revoke, &[("confirmation", "revoke"), ("proof", proof)]).await;

    let unknown = format!("{}#{}", own.split_once('#').unwrap().0, "A".repeat(22));
    for (proof, said) in [(&others, "another token"), (&unknown, "no such link")] {
        let reply = prove(proof).await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("id=\"proof-problem\"") && reply.body.contains(said), "{}", reply.body);
        assert!(!reply.body.contains(code(proof)));
    }
    // The other one was not used by this.
    assert_eq!(send_code(&replica, "/link", &others).await.status, 200);
    assert_eq!(prove(&own).await.status, 303);
    assert_eq!(send_code(&replica, "/link", &own).await.status, 401);
    let listed = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert!(listed.iter().any(|token| token.id == target && token.revoke_time.is_some()));
}
