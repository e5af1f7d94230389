//! The example of a backend that signs its users in and shows them their own tokens: started as its users do, against a
//! real tokend, and used as a browser uses it.

use std::net::SocketAddr;
use std::path::Path;

use tokend::api::proto::{CreateTokenRequest, Grant, ListTokensRequest};

use crate::support::client::{created, created_with, ordinary, texts};
use crate::support::eventually;
use crate::support::http::{Reply, post, send};
use crate::support::program::{TestDir, free_address, or_skipped};
use crate::support::replica::Replica;

/// What a browser sends with a form of the same page.
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// Signs a user in at the example, and returns the cookie.
async fn signed_in(backend: SocketAddr, name: &str) -> String {
    let reply = post(backend, "/sign-in", &[], &[("name", name)]).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
    cookie(&reply)
}

/// Returns the link that the frame of the example's page has.
fn framed(page: &Reply) -> &str {
    let (_, rest) = page.body.split_once("src=\"").unwrap_or_else(|| panic!("{} {}", page.status, page.body));
    rest.split_once('"').unwrap().0
}

#[tokio::test]
async fn a_backend_shows_its_users_their_own_tokens() {
    let built = Path::new(env!("CARGO_BIN_EXE_tokend")).with_file_name("portal");
    let Some(program) = or_skipped("portal", Some(built).filter(|program| program.exists())) else { return };
    let replica = Replica::start().await;
    let mut root = replica.root();
    let grant = Grant { scopes: texts(&["reports:*"]), all_users: true, ..Grant::default() };
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "shop".to_owned(),
        scopes: texts(&["tokend:write"]),
        grant: Some(grant),
        ..ordinary()
    };
    let own = created(&mut root, request).await.secret;
    let (test_dir, listen) = (TestDir::new(), free_address());
    let secret = test_dir.write("secret", &own);
    let mut running = test_dir.start_with(
        &program,
        &[],
        &[
            ("TOKEND_ADDRESS", &format!("http://{}", replica.address)),
            ("TOKEND_SECRET_FILE", &secret),
            ("PORTAL_LISTEN", &listen.to_string()),
        ],
    );
    eventually("the backend listens", async || {
        running.check();
        tokio::net::TcpStream::connect(listen).await.ok()
    })
    .await;

    // Only who is signed in at the backend gets a link, and only for themselves.
    let nobody = send(listen, "GET", "/tokens", &[], "").await;
    assert_eq!((nobody.status, nobody.header("location").as_deref()), (303, Some("/")));
    let ada = signed_in(listen, "ada").await;
    let page = send(listen, "GET", "/tokens?user_id=grace&name=grace", &[("cookie", &ada)], "").await;
    assert_eq!(
        (page.status, page.header("cache-control").as_deref()),
        (200, Some("no-store")),
        "{}",
        page.body
    );
    assert!(!page.body.contains(&own));
    let link = framed(&page);
    let opened = post(replica.console, "/portal/open", &[SAME_ORIGIN], &[("code", link)]).await;
    assert_eq!(
        (opened.status, opened.header("location").as_deref()),
        (303, Some("/tokens")),
        "{}",
        opened.body
    );
    let session = cookie(&opened);
    let list = async || send(replica.console, "GET", "/tokens", &[("cookie", &session)], "").await;
    let shown = list().await.body;
    assert!(shown.contains("Signed in as <bdi>ada</bdi>"), "{shown}");
    // Neither the backend's token nor those of others.
    created_with(&mut root, "acme", &["reports:read"]).await;
    let tokens = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert!(tokens.iter().any(|token| token.user_id == "shop"));
    assert!(!list().await.body.contains("shop"));

    // Signing out at the backend ends the session at once.
    let out = post(listen, "/sign-out", &[("cookie", &ada)], &[]).await;
    assert_eq!(out.status, 303, "{}", out.body);
    let over = list().await;
    assert_eq!(over.status, 401, "{}", over.body);
    assert!(!over.body.contains("Signed in as"));
    let again = send(listen, "GET", "/tokens", &[("cookie", &ada)], "").await;
    assert_eq!((again.status, again.header("location").as_deref()), (303, Some("/")));
}
