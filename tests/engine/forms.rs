//! A form of the console whose replica is killed before it answers: the browser sends it again, to another replica, in
//! the same session.

use std::net::SocketAddr;

use tokend::api::proto::{ListTokensRequest, Verdict};
use tokio::net::TcpStream;

use super::fleet::{Process, url};
use super::setup::run;
use crate::support::client::verified;
use crate::support::eventually;
use crate::support::http::{Reply, post, send};
use crate::support::replica::Installation;

const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");
const CONSOLE: [&str; 2] = ["--console-listen", "127.0.0.1:0"];

/// A browser with a session.
struct Browser {
    /// The value of the session's cookie, whose name has the port of the console.
    key: String,
    form_token: String,
}

/// Returns the value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

impl Browser {
    async fn sign_in(console: SocketAddr, secret: &str) -> Self {
        let reply = post(console, "/sign-in", &[OWN], &[("secret", secret), ("next", "/tokens")]).await;
        assert_eq!(reply.status, 303, "{}", reply.body);
        let cookie = reply.header("set-cookie").unwrap();
        let key = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
        let mut browser = Self { key, form_token: String::new() };
        browser.form_token = hidden(&browser.get(console, "/tokens").await.body, "form_token");
        browser
    }

    fn cookie(&self, console: SocketAddr) -> String {
        format!("tokend-console-{}={}", console.port(), self.key)
    }

    async fn get(&self, console: SocketAddr, path: &str) -> Reply {
        send(console, "GET", path, &[("cookie", &self.cookie(console))], "").await
    }

    /// Opens the form for a new token; returns its nonce.
    async fn form(&self, console: SocketAddr) -> String {
        let opened = self.get(console, "/tokens/new").await.header("location").unwrap();
        hidden(&self.get(console, &opened).await.body, "form")
    }

    fn fields<'form>(&'form self, nonce: &'form str, name: &'form str) -> Vec<(&'form str, &'form str)> {
        vec![
            ("form_token", &self.form_token),
            ("form", nonce),
            ("name", name),
            ("user", "ada"),
            ("expiration", "30d"),
        ]
    }

    /// Sends the form, follows the answer, and returns the secret that the page shows.
    async fn generate(&self, console: SocketAddr, nonce: &str, name: &str) -> String {
        let cookie = self.cookie(console);
        let headers = [OWN, ("cookie", &*cookie)];
        let reply = post(console, "/tokens/new", &headers, &self.fields(nonce, name)).await;
        assert_eq!(reply.status, 303, "{}", reply.body);
        let page = self.get(console, &reply.header("location").unwrap()).await.body;
        let (_, rest) = page.split_once("id=\"secret\"").unwrap();
        rest.split(['>', '<']).nth(1).unwrap().to_owned()
    }

    /// Sends the form, and reads no answer.
    async fn generate_unread(&self, console: SocketAddr, nonce: &str, name: &str) -> TcpStream {
        let body =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(self.fields(nonce, name)).finish();
        let request = format!(
            "POST /tokens/new HTTP/1.1\r\nHost: {console}\r\nCookie: {}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.cookie(console),
            body.len()
        );
        let mut stream = TcpStream::connect(console).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        stream
    }
}

#[tokio::test]
async fn a_replica_is_killed_before_it_answers_and_another_gives_the_same_secret_in_the_same_session() {
    let installation = Installation::new().await;
    let database = &installation.database;
    let survivor = Process::start(&installation, &url(database), &CONSOLE).await;
    let (other, mut root) = (survivor.console().await, survivor.root());

    // In the middle of the transaction, and after its commit.
    for name in ["before", "after"] {
        let mut killed = Process::start(&installation, &url(database), &CONSOLE).await;
        let console = killed.console().await;
        let browser = Browser::sign_in(console, &installation.root_secret).await;
        let nonce = browser.form(console).await;
        let mut blocker = database.connect().await;
        let blocks = name == "before";
        if blocks {
            run(&mut blocker, "BEGIN; LOCK TABLE token_events IN EXCLUSIVE MODE").await;
        }
        let unread = browser.generate_unread(console, &nonce, name).await;
        let reached = if blocks {
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO token_events%'"
                .to_owned()
        } else {
            format!("SELECT count(*) FROM tokens WHERE name = '{name}'")
        };
        eventually("the form is being answered", async || {
            (database.count(&*reached).await > 0).then_some(())
        })
        .await;

        killed.kill();

        drop(unread);
        if blocks {
            run(&mut blocker, "COMMIT").await;
        }
        let secret = browser.generate(other, &nonce, name).await;
        assert_eq!(browser.generate(other, &nonce, name).await, secret);
        assert_eq!(verified(&mut root, &secret, &[]).await.verdict(), Verdict::Valid);
        assert_eq!(browser.get(other, "/tokens").await.status, 200, "the session lives on");
    }

    let request = ListTokensRequest { user_id: "ada".to_owned(), ..Default::default() };
    assert_eq!(
        root.list_tokens(request).await.unwrap().into_inner().tokens.len(),
        2,
        "one token of each form"
    );
}
