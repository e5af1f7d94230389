//! Every page of the console, in a table: what other people have named things stays text on it, and it is small.

use std::collections::BTreeSet;
use std::path::Path;

use tokend::api::proto::{
    CreateTokenRequest, DisableTokenRequest, Policy, RotateTokenRequest, UpdatePolicyRequest,
};

use super::links::link;
use super::portal::portal_link;
use super::{OWN, Person};
use crate::support::client::{created, ordinary, revoked, rotated, rotation, texts};
use crate::support::http::{Reply, get, post, send};
use crate::support::replica::Replica;

/// What people can name.
struct Names {
    token: String,
    user: &'static str,
    organization: &'static str,
    /// A reason, a label, and what is typed into other fields.
    text: &'static str,
    /// How many tokens and sessions there are.
    number: usize,
}

/// A template, and a page that was made from it.
type Pages = Vec<(&'static str, Reply)>;

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Opens every page, as somebody who sees all organizations, and whose own token has such a name.
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn every_page(replica: &Replica, names: &Names) -> Pages {
    let request = |scope: &str| CreateTokenRequest {
        organization_id: names.organization.to_owned(),
        user_id: names.user.to_owned(),
        name: names.token.clone(),
        scopes: texts(&[scope, "logs:read", "metrics:read"]),
        labels: [(names.text.chars().take(15).collect(), names.text.to_owned())].into(),
        allowed_cidrs: texts(&["127.0.0.0/8"]),
        ..ordinary()
    };
    let mut admin = replica.root();
    let own = created(&mut admin, request("tokend:root")).await.secret;
    let mut root = replica.client(&own);
    let mut person = Person::of(replica.console, &own).await;
    for _ in 0..names.number {
        created(&mut root, request("reports:read")).await;
        person = Person::of(replica.console, &own).await;
    }
    let old = created(&mut root, request("reports:read")).await;
    let old_id = old.token.unwrap().id;
    let grace = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let new = rotated(&mut root, RotateTokenRequest { grace_period: grace, ..rotation(&old_id) }).await;
    let new_id = new.token.unwrap().id;
    let off =
        DisableTokenRequest { token_id: new_id.clone(), reason: names.text.to_owned(), ..Default::default() };
    root.disable_token(off).await.unwrap();
    let ended = created(&mut root, request("reports:read")).await;
    let ended_id = ended.token.unwrap().id;
    revoked(&mut root, &ended_id, names.text).await;
    let fresh = created(&mut root, request("reports:read")).await.token.unwrap().id;
    let policy = Policy {
        most_active_tokens_per_user: 500,
        allowed_scopes: texts(&["reports:*"]),
        ..Default::default()
    };
    let policy = UpdatePolicyRequest { organization_id: names.organization.to_owned(), policy: Some(policy) };
    root.update_policy(policy).await.unwrap();

    let owner = [("user", names.user), ("organization", names.organization)];
    let (filters, nonce) = (query(&owner), person.new_form().await);
    let host: String = names.token.chars().take(60).collect();
    let login = [("challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), ("host", &*host)];
    let mut pages = Pages::new();
    for (template, path) in [
        ("tokens/list.html", "/tokens".to_owned()),
        ("tokens/list.html", format!("/tokens?{filters}")),
        (
            "tokens/list.html",
            format!("/tokens?{}", query(&[("name", names.text), ("created_after", names.text)])),
        ),
        (
            "tokens/new.html",
            format!(
                "/tokens/new?form={nonce}&{filters}&{}",
                query(&[("name", &names.token), ("scope", names.text), ("label", names.text)])
            ),
        ),
        ("tokens/token.html", format!("/tokens/{old_id}")),
        ("tokens/token.html", format!("/tokens/{new_id}")),
        ("tokens/token.html", format!("/tokens/{ended_id}")),
        ("tokens/rotate.html", format!("/tokens/{fresh}/rotate?form={nonce}")),
        ("tokens/edit.html", format!("/tokens/{fresh}/edit")),
        ("tokens/usability.html", format!("/tokens/{fresh}/disable?{}", query(&[("reason", names.text)]))),
        ("tokens/usability.html", format!("/tokens/{new_id}/enable")),
        ("tokens/revoke.html", format!("/tokens/{fresh}/revoke?{}", query(&[("reason", names.text)]))),
        ("tokens/chosen.html", format!("/tokens/chosen?do=disable&id={fresh}&id={old_id}")),
        ("tokens/user.html", format!("/tokens/user?{filters}")),
        ("usage/overview.html", "/usage".to_owned()),
        ("usage/overview.html", format!("/usage?{}", query(&owner[1..]))),
        ("usage/overview.html", format!("/usage?{}", query(&[("organization", &"x".repeat(201))]))),
        ("users/list.html", "/users".to_owned()),
        ("users/list.html", format!("/users?disabled=1&{filters}")),
        ("users/list.html", format!("/users?owner=x&{filters}")),
        ("users/usability.html", format!("/users/disable?{filters}&{}", query(&[("reason", names.text)]))),
        ("users/usability.html", format!("/users/enable?{filters}&owner=service")),
        ("find/secret_scan.html", "/find".to_owned()),
        ("find/explain.html", "/why".to_owned()),
        ("audit/list.html", "/audit".to_owned()),
        ("audit/list.html", format!("/audit?{filters}")),
        (
            "audit/list.html",
            format!(
                "/audit?{}",
                query(&[("actor", names.text), ("token", names.text), ("kind", names.text)])
            ),
        ),
        ("policy/edit.html", format!("/policy?{}", query(&owner[1..]))),
        ("session/sessions.html", "/sessions".to_owned()),
        ("session/sessions.html", format!("/sessions?token={fresh}")),
        ("session/login.html", format!("/login?{}", query(&login))),
        ("session/not_a_login.html", format!("/login?{}", query(&[("host", names.text)]))),
        ("message.html", format!("/tokens/{}", query(&[("", names.text)]))),
        ("message.html", format!("/{}", query(&[("", names.text)]))),
    ] {
        pages.push((template, person.get(&path).await));
    }

    // What answers a form, with mistakes in it and without.
    let (wrong, text) = (format!("{}\r\nset-cookie: a=b", names.text), names.text);
    let of = |act: &str| format!("/tokens/{fresh}/{act}");
    let sent = [("form", &*nonce), ("name", &*wrong), ("user", &wrong), ("organization", &wrong)];
    let typed = [
        ("scopes", text),
        ("labels", text),
        ("networks", text),
        ("reason", &wrong),
        ("expiration", text),
        ("grace", text),
    ];
    let new_form = [&sent[..], &typed, &[("date", text), ("privilege", text)]].concat();
    let edited = [&sent[..], &typed, &[("version", text)]].concat();
    let checked = [&owner[1..], &[("lifetime", "30d"), ("required", "on"), ("scopes", "reports:*")]].concat();
    let mistyped =
        [&owner[1..], &[("lifetime", text), ("grace", text), ("most", text), ("scopes", text)]].concat();
    let both = [("do", "disable"), ("reason", text), ("id", &*fresh), ("id", &*old_id), ("id", &*ended_id)];
    let found = format!("{wrong} {} {} {}", ended.secret, old.secret, &old.secret[..50]);
    for (template, path, fields) in [
        ("tokens/new.html", "/tokens/new".to_owned(), new_form),
        ("tokens/edit.html", of("edit"), edited),
        ("tokens/rotate.html", of("rotate"), [&sent[..1], &typed].concat()),
        ("tokens/usability.html", of("disable"), typed.to_vec()),
        ("tokens/revoke.html", of("revoke"), typed.to_vec()),
        ("tokens/chosen.html", "/tokens/chosen".to_owned(), [&both[..], &typed[3..4]].concat()[2..].to_vec()),
        ("tokens/user.html", "/tokens/user".to_owned(), [&owner[..], &typed].concat()),
        ("tokens/user.html", "/tokens/user".to_owned(), sent.to_vec()),
        ("users/usability.html", "/users/disable".to_owned(), [&owner[..], &typed].concat()),
        ("users/usability.html", "/users/enable".to_owned(), owner.to_vec()),
        ("users/usability.html", "/users/enable".to_owned(), sent.to_vec()),
        ("find/secret_scan.html", "/find".to_owned(), vec![("text", &*found)]),
        ("find/explain.html", "/why".to_owned(), vec![("token", &*ended.secret)]),
        (
            "find/explain.html",
            "/why".to_owned(),
            vec![("token", text), ("scopes", &wrong), ("address", &wrong)],
        ),
        ("session/allowed.html", "/login".to_owned(), login.to_vec()),
        ("policy/edit.html", "/policy".to_owned(), checked),
        ("policy/edit.html", "/policy".to_owned(), mistyped),
        ("tokens/done.html", "/tokens/chosen".to_owned(), both.to_vec()),
        (
            "tokens/created.html",
            "/tokens/new".to_owned(),
            vec![("form", &*nonce), ("name", &names.token), ("user", names.user), ("expiration", "7d")],
        ),
    ] {
        let reply = person.post(&path, &fields).await;
        pages.push((
            template,
            if reply.status == 303 { person.get(&reply.header("location").unwrap()).await } else { reply },
        ));
    }

    // Without a session.
    let console = replica.console;
    for path in ["/sign-in", "/link"] {
        let template = if path == "/link" { "session/link.html" } else { "session/sign_in.html" };
        pages.push((template, send(console, "GET", path, &[], "").await));
        let fields = [("secret", &*wrong), ("code", &*wrong), ("next", &*wrong)];
        pages.push((template, post(console, path, &[OWN], &fields).await));
    }
    let code = link(&mut root).await;
    pages.push(("session/confirm.html", post(console, "/link", &[OWN], &[("code", &code)]).await));
    pages.push(("session/portal.html", send(console, "GET", "/portal", &[], "").await));
    pages.push(("session/portal.html", post(console, "/portal", &[OWN], &[("code", &*wrong)]).await));
    let portal = portal_link(&mut root, names.user, &[]).await;
    let asked = post(console, "/portal", &[OWN], &[("code", &portal)]).await;
    assert!(asked.body.contains("Manage the tokens of"), "{}", asked.body);
    pages.push(("session/portal_open.html", asked));
    let linked = format!("/tokens?{}", query(&[("name", text)]));
    pages.push((
        "session/reload.html",
        send(console, "GET", &linked, &[("sec-fetch-site", "cross-site")], "").await,
    ));
    pages
}

/// Returns the names of the templates that are whole pages.
fn templates(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            templates(&entry.path(), &format!("{name}/"), found);
        } else if std::fs::read_to_string(entry.path()).unwrap().starts_with("{% extends") {
            found.insert(name);
        }
    }
}

/// Returns a page without what stands in fields that can be edited, or are sent back as they are.
fn without_fields(page: &str) -> String {
    let mut rest = page;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once(" value=\"") {
        text += before;
        rest = after.split_once('"').unwrap().1;
    }
    text += rest;
    let areas =
        text.split("<textarea").map(|part| part.split_once("</textarea>").map_or(part, |(_, after)| after));
    areas.collect()
}

fn escaped(text: &str) -> String {
    let codes = [('&', "&#38;"), ('<', "&#60;"), ('>', "&#62;"), ('"', "&#34;"), ('\'', "&#39;")];
    codes.into_iter().fold(text.to_owned(), |text, (character, code)| text.replace(character, code))
}

#[tokio::test]
async fn names_of_any_kind_stay_text_on_every_page() {
    let markup = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&{{7*7}}";
    for names in [
        Names { token: markup.to_owned(), user: markup, organization: markup, text: markup, number: 0 },
        Names {
            token: "آدا لاولیس".to_owned(),
            user: "\u{202e}nimda\u{2066}",
            organization: "\u{200b}gro\u{202e}",
            text: "\u{202e}txet\u{feff}",
            number: 0,
        },
        Names {
            token: "🚀".repeat(100),
            user: "🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀",
            organization: "👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀",
            text: "👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀👩\u{200d}🚀",
            number: 0,
        },
    ] {
        let replica = Replica::start().await;

        let pages = every_page(&replica, &names).await;

        let mut bare = Vec::new();
        let (mut seen, mut all) = (BTreeSet::new(), BTreeSet::new());
        templates(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/console/templates")), "", &mut all);
        for (template, Reply { body, status, .. }) in &pages {
            seen.insert((*template).to_owned());
            assert!(body.contains("</html>"), "{template}: {status} {body}");
            for bad in ["<script>", "<img", "onerror=alert(1)>", "'&{"] {
                assert!(!body.contains(bad), "{template}: {bad}: {body}");
            }
            let text = without_fields(body);
            for hidden in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\r'] {
                for (at, _) in text.match_indices(hidden) {
                    let before: Vec<char> = text[..at].chars().rev().take(60).collect();
                    bare.push((*template, hidden, before.into_iter().rev().collect::<String>()));
                }
            }
            let nameless = [
                "session/sign_in.html",
                "session/link.html",
                "session/portal.html",
                "session/portal_open.html",
                "session/reload.html",
                "message.html",
            ];
            if !nameless.contains(template) {
                assert!(body.contains(&escaped(&names.token)), "{template}: {body}");
            }
        }
        assert!(bare.is_empty(), "{bare:#?}");
        assert_eq!(seen, all, "each page is in the table");
    }
}

#[tokio::test]
async fn every_page_has_less_than_50_kilobytes_with_its_stylesheet_and_its_script() {
    let replica = Replica::start().await;
    let names = Names {
        token: "nightly export of the reports".to_owned(),
        user: "ada.lovelace@example.org",
        organization: "analytical-engines",
        text: "The laptop was left at the station",
        number: 30,
    };
    let pages = every_page(&replica, &names).await;
    let first = &pages[0].1.body;
    assert_eq!(first.matches("<tr role=\"row\" id=").count(), 25);
    let mut assets = 0;
    for attribute in ["stylesheet\" href=\"", "script src=\"", "svg+xml\" href=\""] {
        let path = first.split_once(attribute).unwrap().1.split('"').next().unwrap();
        assets += get(replica.console, path).await.1.len();
    }
    for (template, Reply { body, .. }) in &pages {
        let whole = body.len() + assets;
        assert!(whole < 50_000, "{template}: {whole} bytes, {assets} of assets");
    }
}
