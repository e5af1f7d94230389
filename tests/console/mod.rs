//! The console from outside: forms and pages as a browser sends and gets them, without one; and a real browser.

mod acts;
mod audit;
mod chromium;
mod command_line;
mod disabled_users;
mod find;
mod guard;
mod links;
mod list;
mod live;
mod login_page;
mod logins;
mod mine;
mod own_sessions;
mod pages;
mod policies;
mod portal;
mod portal_acts;
mod portal_ends;
mod posts;
mod rotation;
mod sessions;
mod several;
mod shell;
mod terms;
mod token_page;
mod tokens;
mod usage;
mod users;

use std::net::SocketAddr;

use tokend::api::proto::Token;

use crate::support::database::Database;
use crate::support::http::{Reply, post, send};
use crate::support::replica::Replica;

/// What browsers say of a form that a page of the console has sent.
const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Somebody with a session.
#[derive(Clone)]
struct Person {
    address: SocketAddr,
    cookie: String,
    form_token: String,
}

/// Tries to sign in with this secret.
async fn sign_in(address: SocketAddr, secret: &str) -> Reply {
    post(address, "/sign-in", &[OWN], &[("secret", secret), ("next", "/tokens")]).await
}

/// Returns the name and value of the cookie that a reply sets.
fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// Returns the value of a hidden field.
fn hidden<'page>(page: &'page str, name: &str) -> &'page str {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap()
}

impl Person {
    /// Signs in, which must succeed.
    async fn of(address: SocketAddr, secret: &str) -> Self {
        let reply = sign_in(address, secret).await;
        let location = reply.header("location");
        assert_eq!((reply.status, location.as_deref()), (303, Some("/tokens")), "{}", reply.body);
        let mut person = Self { address, cookie: cookie(&reply), form_token: String::new() };
        let list = person.get("/tokens").await.body;
        hidden(&list, "form_token").clone_into(&mut person.form_token);
        person
    }

    async fn root(replica: &Replica) -> Self {
        Self::of(replica.console, &replica.installation.root_secret).await
    }

    /// The same session at another replica, whose cookie has the name of its port.
    fn at(&self, replica: &Replica) -> Self {
        let (_, value) = self.cookie.split_once('=').unwrap();
        let cookie = format!("tokend-console-{}={value}", replica.console.port());
        Self { address: replica.console, cookie, form_token: self.form_token.clone() }
    }

    async fn get(&self, path: &str) -> Reply {
        send(self.address, "GET", path, &[("cookie", &self.cookie)], "").await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let fields = [&[("form_token", &*self.form_token)], fields].concat();
        post(self.address, path, &[OWN, ("cookie", &self.cookie)], &fields).await
    }

    /// Opens a new form, and returns its nonce.
    async fn new_form(&self) -> String {
        let opened = self.get("/tokens/new").await;
        assert_eq!(opened.status, 303);
        let form = self.get(&opened.header("location").unwrap()).await;
        assert_eq!(form.status, 200);
        hidden(&form.body, "form").to_owned()
    }

    /// Sends a form for a token of this name and user, with more fields.
    async fn generate(&self, nonce: &str, name: &str, more: &[(&str, &str)]) -> Reply {
        let fields = [&[("form", nonce), ("name", name), ("user", "ada")], more].concat();
        self.post("/tokens/new", &fields).await
    }

    /// Creates a token, and returns the page with its secret, and the secret.
    async fn created(&self, nonce: &str, name: &str, more: &[(&str, &str)]) -> (String, String) {
        let more = [&[("expiration", "30d")], more].concat();
        let reply = self.generate(nonce, name, &more).await;
        assert_eq!(reply.status, 303, "{}", reply.body);
        let page = self.get(&reply.header("location").unwrap()).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let secret = secret(&page.body);
        (page.body, secret)
    }
}

/// Follows a form that was accepted to the page that it leads to.
async fn done(person: &Person, reply: &Reply) -> String {
    assert_eq!(reply.status, 303, "{}", reply.body);
    let page = person.get(&reply.header("location").unwrap()).await;
    assert_eq!(page.status, 200, "{}", page.body);
    page.body
}

/// Returns the secret that a page shows.
fn secret(page: &str) -> String {
    let (_, rest) = page.split_once("id=\"secret\"").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split('<').next().unwrap().to_owned()
}

/// Returns all tokens of a user.
async fn tokens_of(replica: &Replica, user_id: &str) -> Vec<Token> {
    let request = tokend::api::proto::ListTokensRequest { user_id: user_id.to_owned(), ..Default::default() };
    replica.root().list_tokens(request).await.unwrap().into_inner().tokens
}

/// Returns every row of every table as text.
async fn dump(database: &Database) -> String {
    let mut connection = database.connect().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(tables.contains(&"console_sessions".to_owned()));
    let mut text = String::new();
    for table in tables {
        let rows = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t");
        text += &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(rows))
            .fetch_one(&mut connection)
            .await
            .unwrap();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
