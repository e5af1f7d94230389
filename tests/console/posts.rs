//! Every form that can be sent, in a table: only from the console's own pages, only with the token of its own session,
//! and those that change something for others only with a fresh proof.

use std::collections::BTreeSet;
use std::path::Path;

use super::{OWN, Person, hidden, portal, tokens_of};
use crate::support::client::created_with;
use crate::support::http::{post, send};
use crate::support::replica::Replica;

/// A form.
struct Form {
    /// Its path, as the router has it.
    route: &'static str,
    path: String,
    fields: Vec<(&'static str, String)>,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    /// Signs in.
    SignIn,
    /// Reads, or ends what the session itself has.
    Own,
    /// Changes something.
    Act,
}

impl Form {
    fn fields(&self) -> Vec<(&str, &str)> {
        self.fields.iter().map(|(name, value)| (*name, &**value)).collect()
    }
}

/// Returns every form as somebody with a session would send it, about a token that exists.
async fn forms(replica: &Replica, person: &Person) -> Vec<Form> {
    let made = created_with(&mut replica.root(), "acme", &[]).await.token.unwrap();
    let (id, nonce) = (made.id, person.new_form().await);
    let version = hidden(&person.get(&format!("/tokens/{id}/edit")).await.body, "version").to_owned();
    let common = [
        ("form", nonce.clone()),
        ("name", "changed".to_owned()),
        ("user", made.user_id),
        ("organization", "acme".to_owned()),
        ("expiration", "30d".to_owned()),
        ("grace", "1h".to_owned()),
        ("confirmation", "revoke".to_owned()),
        ("version", version),
        ("do", "revoke".to_owned()),
        ("id", id.clone()),
        ("act", "save".to_owned()),
        ("lifetime", "30d".to_owned()),
        ("secret", replica.installation.root_secret.clone()),
        ("code", "AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        ("text", id.clone()),
    ];
    let login = [
        ("challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()),
        ("host", "laptop".to_owned()),
    ];
    [
        ("/sign-in", Kind::SignIn),
        ("/link", Kind::SignIn),
        ("/link/confirm", Kind::SignIn),
        ("/portal", Kind::SignIn),
        ("/portal/open", Kind::SignIn),
        ("/sign-out", Kind::Own),
        ("/find", Kind::Own),
        ("/why", Kind::Own),
        ("/tokens/created/{nonce}/done", Kind::Own),
        ("/tokens/new", Kind::Act),
        ("/tokens/chosen", Kind::Act),
        ("/tokens/user", Kind::Act),
        ("/tokens/{id}/rotate", Kind::Act),
        ("/tokens/{id}/edit", Kind::Act),
        ("/tokens/{id}/disable", Kind::Act),
        ("/tokens/{id}/enable", Kind::Act),
        ("/tokens/{id}/revoke", Kind::Act),
        ("/policy", Kind::Act),
        ("/users/disable", Kind::Act),
        ("/users/enable", Kind::Act),
        ("/sessions/end", Kind::Act),
        ("/login", Kind::Act),
    ]
    .into_iter()
    .map(|(route, kind)| {
        let mut fields = if route == "/login" { login.to_vec() } else { common.to_vec() };
        if matches!(route, "/why" | "/sessions/end") {
            fields.push(("token", id.clone()));
        }
        Form { route, path: route.replace("{id}", &id).replace("{nonce}", &nonce), fields, kind }
    })
    .collect()
}

/// Returns the routes that take forms, from the sources.
fn routes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            routes(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            for call in text.split(".route(").skip(1) {
                let call = call.split_once("\n}").map_or(call, |(call, _)| call);
                let route = call.split('"').nth(1).filter(|_| call.contains("post("));
                found.extend(route.map(str::to_owned));
            }
        }
    }
}

/// Returns the state that a form could change.
async fn state(replica: &Replica) -> [i64; 5] {
    let database = &replica.installation.database;
    [
        database.count("SELECT count(*) FROM token_events").await,
        database.count("SELECT count(*) FROM tokens").await,
        database.count("SELECT count(*) FROM console_sessions").await,
        database.count("SELECT count(*) FROM policies").await,
        database.count("SELECT count(*) FROM login_codes").await,
    ]
}

#[tokio::test]
async fn every_form_is_in_the_table() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut all = BTreeSet::new();
    routes(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/console")), &mut all);

    let listed: BTreeSet<String> =
        forms(&replica, &person).await.iter().map(|form| form.route.to_owned()).collect();

    assert_eq!(listed, all);
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let forms = forms(&replica, &person).await;
    let own = format!("http://{}", replica.console);
    let foreign: [&[(&str, &str)]; 9] = [
        &[],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[("origin", "http://localhost:1")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", &own)],
        &[("sec-fetch-site", "none"), ("origin", &own)],
        &[OWN, ("origin", "http://evil.example")],
        &[OWN, OWN],
    ];
    let before = state(&replica).await;

    for form in &forms {
        let fields = [&form.fields()[..], &[("form_token", &person.form_token)]].concat();
        for headers in foreign {
            let all = [headers, &[("cookie", &*person.cookie)]].concat();
            let reply = post(replica.console, &form.path, &all, &fields).await;
            assert_eq!((reply.status, reply.header("set-cookie")), (403, None), "{} {headers:?}", form.path);
            assert!(reply.body.contains("not sent from a page of the console"), "{}", form.path);
        }
    }

    assert_eq!(state(&replica).await, before);
    // Browsers without Sec-Fetch-Site are known by the exact origin.
    let new = forms.iter().find(|form| form.route == "/tokens/new").unwrap();
    let fields = [&new.fields()[..], &[("form_token", &person.form_token)]].concat();
    let headers = [("origin", &*own), ("cookie", &*person.cookie)];
    let reply = post(replica.console, "/tokens/new", &headers, &fields).await;
    assert_eq!(reply.status, 303, "{}", reply.body);
    let text = [("content-type", "text/plain"), OWN, ("cookie", &*person.cookie)];
    assert_eq!(send(replica.console, "POST", "/sign-out", &text, "form_token=x").await.status, 415);
}

#[tokio::test]
async fn a_form_without_the_token_of_its_own_session_changes_nothing() {
    let replica = Replica::start().await;
    let (person, other) = (Person::root(&replica).await, Person::root(&replica).await);
    let forms = forms(&replica, &person).await;
    let before = state(&replica).await;
    assert_ne!(person.form_token, other.form_token);

    for form in forms.iter().filter(|form| form.kind != Kind::SignIn) {
        for form_token in [None, Some(""), Some(&*other.form_token), Some(&person.form_token[1..])] {
            let mut fields = form.fields();
            fields.extend(form_token.map(|token| ("form_token", token)));
            let headers = [OWN, ("cookie", &*person.cookie)];
            let reply = post(replica.console, &form.path, &headers, &fields).await;
            assert_eq!(reply.status, 400, "{} {form_token:?}: {}", form.path, reply.body);
            assert!(reply.body.contains("This form is out of date"), "{}", form.path);
        }
    }

    assert_eq!(state(&replica).await, before);
    assert_eq!(person.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn no_form_with_a_portal_session_does_more_than_its_user_may() {
    let replica = Replica::start().await;
    let root = Person::root(&replica).await;
    let forms = forms(&replica, &root).await;
    let made = portal::backend(&replica, "acme", None).await;
    // The forms are about a token of another user, and for another user.
    let bob = portal::opened(&replica, &mut replica.client(&made.secret), "bob", &["reports:*"]).await;
    let database = &replica.installation.database;
    let own_nonce = bob.new_form().await;
    let before = (state(&replica).await, database.count("SELECT count(*) FROM console_links").await);

    for form in forms.iter().filter(|form| form.kind != Kind::SignIn && form.route != "/sign-out") {
        let fields: Vec<_> = form.fields().into_iter().filter(|(name, _)| *name != "form").collect();
        let reply = bob.post(&form.path, &[&fields[..], &[("form", &own_nonce)]].concat()).await;
        let harmless = form.route == "/tokens/created/{nonce}/done" || form.route == "/tokens/chosen";
        let refused = [403, 404].contains(&reply.status);
        assert!(refused || harmless && reply.status == 303, "{}: {} {}", form.path, reply.status, reply.body);
        assert!(!reply.body.contains("id=\"proof\""), "{}", form.path);
    }

    assert_eq!((state(&replica).await, database.count("SELECT count(*) FROM console_links").await), before);
    assert_eq!(bob.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn every_act_of_an_old_root_session_asks_for_the_secret_once_more() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let forms = forms(&replica, &person).await;
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    assert_eq!(replica.installation.database.execute(stale).await, 1);
    let before = state(&replica).await;

    for form in forms.iter().filter(|form| form.kind == Kind::Act) {
        for proof in [None, Some("x")] {
            let mut fields = form.fields();
            fields.extend(proof.map(|proof| ("proof", proof)));
            let reply = person.post(&form.path, &fields).await;
            assert_eq!(reply.status, 403, "{}: {}", form.path, reply.body);
            assert!(reply.body.contains("id=\"proof-problem\""), "{}: {}", form.path, reply.body);
            assert!(reply.body.contains("name=\"proof\""), "{}: {}", form.path, reply.body);
        }
    }
    assert_eq!(state(&replica).await, before);
    assert!(tokens_of(&replica, "ada").await.iter().all(|token| token.name != "changed"));

    // With it, each is done; the proof counts for the next ones.
    for form in forms.iter().filter(|form| form.kind == Kind::Act && form.route != "/sessions/end") {
        let fields = [&form.fields()[..], &[("proof", &replica.installation.root_secret)]].concat();
        let reply = person.post(&form.path, &fields).await;
        let done = if form.route == "/login" { &[200][..] } else { &[303, 409] };
        assert!(done.contains(&reply.status), "{}: {} {}", form.path, reply.status, reply.body);
        if form.route == "/tokens/new" {
            assert_eq!(reply.status, 303, "{}", reply.body);
        }
    }
}
