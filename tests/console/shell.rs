//! The lines for a shell that the console shows: run as they are, they do what the form does.

use std::path::Path;
use std::process::Stdio;

use tokend::api::proto::{GetPolicyRequest, Token, TokenState};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Person, tokens_of};
use crate::support::client::{created, ordinary};
use crate::support::program::find_tool;
use crate::support::replica::Replica;
use crate::tokens::get::got;

/// What a shell and JSON have to be careful with.
const REASON: &str = "it's \"lost\" $HOME `id` 100% \\n ü";

/// Returns a line that a page shows.
fn line(page: &str, tool: &str) -> String {
    let (_, rest) = page.split_once(&format!("id=\"line-{tool}\">")).unwrap();
    let line = rest.split("</code>").next().unwrap();
    let mut text = String::new();
    for part in line.split("&#") {
        match part.split_once(';') {
            Some((number, rest)) if !text.is_empty() && number.parse::<u32>().is_ok() => {
                text.push(char::from_u32(number.parse().unwrap()).unwrap());
                text += rest;
            }
            _ => text += part,
        }
    }
    text
}

/// Runs a line in a shell that has the root secret in its environment, and nothing else of this test.
async fn run(replica: &Replica, buf: &Path, line: &str) {
    answer(replica, buf, line, "").await;
}

/// Runs a line with this text as its input; returns what it prints.
async fn answer(replica: &Replica, buf: &Path, line: &str, input: &str) -> String {
    assert!(!line.contains(&replica.installation.root_secret[30..]), "no secret is on the line");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_tokend")).parent().unwrap();
    let path = format!(
        "{}:{}:{}",
        program.display(),
        root.join(".ci/clients").display(),
        std::env::var("PATH").unwrap()
    );
    let mut child = Command::new("bash")
        .args(["-ec", line])
        .env_clear()
        .envs([
            ("PATH", path),
            ("HOME", "/nowhere".to_owned()),
            ("TMPDIR", env!("CARGO_TARGET_TMPDIR").to_owned()),
        ])
        .envs([
            ("TOKEND_SECRET", replica.installation.root_secret.clone()),
            ("TOKEND_ADDRESS", format!("http://{}", replica.address)),
            ("TOUR_ADDRESS", replica.address.to_string()),
            ("TOUR_BUF", buf.display().to_string()),
            ("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR").to_owned()),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn token(replica: &Replica, user_id: &str) -> Token {
    let request = tokend::api::proto::CreateTokenRequest { user_id: user_id.to_owned(), ..ordinary() };
    created(&mut replica.root(), request).await.token.unwrap()
}

#[tokio::test]
async fn the_lines_of_every_form_do_what_the_form_does() {
    let Some(buf) = find_tool("buf") else { return };
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    for tool in ["tokend", "grpcurl"] {
        let run = async |page: &str| run(&replica, &buf, &line(page, tool)).await;
        // New: as it is filled in by the address, and as it was typed when a field was wrong.
        let user = format!("-{tool} \u{202e}'x'");
        let nonce = person.new_form().await;
        let fields = [
            ("form", &*nonce),
            ("name", REASON),
            ("user", &*user),
            ("organization", "acme"),
            ("expiration", "30d"),
            ("scopes", "reports:* a:b"),
            ("labels", "team=it's\r\nb="),
            ("networks", "10.0.0.0/8"),
            ("form_token", "x"),
        ];
        let wrong = [&fields[..8], &[("privilege", "tokend:nothing")]].concat();
        let page = person.post("/tokens/new", &wrong).await;
        assert_eq!(page.status, 400);
        let page = page.body.replace(" --scope tokend:nothing", "").replace(",&#34;tokend:nothing&#34;", "");
        run(&page).await;
        let made = tokens_of(&replica, &user).await.remove(0);
        assert_eq!((&*made.name, &*made.organization_id, made.scopes.len()), (REASON, "acme", 2));
        assert_eq!((made.labels["team"].as_str(), made.allowed_cidrs.len()), ("it's", 1));
        let lifetime = made.expire_time.unwrap().seconds - made.create_time.unwrap().seconds;
        assert_eq!(lifetime, 30 * 86_400);
        let filled = person.get(&format!("/tokens/new?form={nonce}&name=n&user={tool}&expiration=7d")).await;
        run(&filled.body).await;
        assert_eq!(tokens_of(&replica, tool).await.len(), 1);

        // Edit, disable, enable, rotate, revoke.
        let id = token(&replica, "ada").await.id;
        let form = person.get(&format!("/tokens/{id}/edit")).await.body;
        let version = super::hidden(&form, "version").to_owned();
        let edit = [
            ("version", &*version),
            ("name", REASON),
            ("expiration", "365d"),
            ("labels", "a=b"),
            ("networks", "10.0.0.0/8 x"),
        ];
        let page = person.post(&format!("/tokens/{id}/edit"), &edit).await;
        assert_eq!(page.status, 400);
        run(&page.body.replace(" --cidr x", "").replace(",&#34;x&#34;", "")).await;
        let changed = got(&mut root, &id).await;
        assert_eq!((&*changed.name, changed.labels.len(), changed.allowed_cidrs.len()), (REASON, 1, 1));
        assert!(changed.expire_time.is_some());

        let query = form_urlencoded_reason();
        run(&person.get(&format!("/tokens/{id}/disable?{query}")).await.body).await;
        assert_eq!(got(&mut root, &id).await.state(), TokenState::Disabled);
        run(&person.get(&format!("/tokens/{id}/enable")).await.body).await;
        assert_eq!(got(&mut root, &id).await.state(), TokenState::Active);
        let rotate =
            person.get(&format!("/tokens/{id}/rotate?form={nonce}&grace=24h&expiration=7d")).await.body;
        run(&rotate).await;
        let old = got(&mut root, &id).await;
        let new = got(&mut root, &old.superseded_by).await;
        let of = |token: &Token, from: &Token| {
            token.expire_time.unwrap().seconds - from.create_time.unwrap().seconds
        };
        assert_eq!((of(&old, &new), of(&new, &new)), (86_400, 7 * 86_400));
        let only = person.get(&format!("/tokens/{id}/revoke?{query}&only_this=1")).await.body;
        run(&only).await;
        let old = got(&mut root, &id).await;
        assert_eq!((old.state(), &*old.revoke_reason), (TokenState::Revoked, REASON));
        assert_eq!(got(&mut root, &new.id).await.state(), TokenState::Active);

        // Several, and all of a user.
        let several = [token(&replica, "ada").await.id, token(&replica, "ada").await.id];
        let ids = format!("id={}&id={}", several[0], several[1]);
        run(&person.get(&format!("/tokens/chosen?do=disable&{ids}&{query}")).await.body).await;
        for id in &several {
            assert_eq!(got(&mut root, id).await.state(), TokenState::Disabled);
        }
        run(&person.get(&format!("/tokens/chosen?do=revoke&{ids}&{query}")).await.body).await;
        for id in &several {
            let token = got(&mut root, id).await;
            assert_eq!((token.state(), &*token.revoke_reason), (TokenState::Revoked, REASON));
        }
        let last = token(&replica, &user).await;
        let encoded = form_urlencoded::Serializer::new(String::new()).append_pair("user", &user).finish();
        run(&person.get(&format!("/tokens/user?{encoded}&{query}")).await.body).await;
        let last = got(&mut root, &last.id).await;
        assert_eq!((last.state(), &*last.revoke_reason), (TokenState::Revoked, REASON));
    }
}

#[tokio::test]
async fn the_lines_of_every_other_page_ask_and_do_the_same() {
    let Some(buf) = find_tool("buf") else { return };
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let organization = "it's acme";
    let encoded =
        form_urlencoded::Serializer::new(String::new()).append_pair("organization", organization).finish();
    for (tool, lifetime) in [("tokend", "30d"), ("grpcurl", "20d")] {
        let answer = async |page: &str, input: &str| answer(&replica, &buf, &line(page, tool), input).await;
        // The policy: read, then checked and saved.
        let page = person.get(&format!("/policy?{encoded}")).await.body;
        assert!(answer(&page, "").await.contains(if tool == "tokend" { "longest" } else { "policy" }));
        let fields = [
            ("organization", organization),
            ("lifetime", lifetime),
            ("required", "on"),
            ("grace", "24h"),
            ("most", "5"),
            ("scopes", "reports:* logs:read"),
            ("reuse", "on"),
        ];
        answer(&person.post("/policy", &fields).await.body, "").await;
        let request = GetPolicyRequest { organization_id: organization.to_owned() };
        let policy = root.get_policy(request).await.unwrap().into_inner().policy.unwrap();
        let days = policy.longest_lifetime.unwrap().seconds / 86_400;
        assert_eq!(format!("{days}d"), lifetime, "{tool}");
        assert_eq!((policy.longest_grace.unwrap().seconds, policy.most_active_tokens_per_user), (86_400, 5));
        assert!(policy.expiration_required && policy.reuse_detection && policy.allowed_scopes.len() == 2);

        // Why; and the revocation of what was found.
        let request = tokend::api::proto::CreateTokenRequest {
            scopes: vec!["reports:*".to_owned()],
            allowed_cidrs: vec!["192.0.2.0/24".to_owned()],
            ..ordinary()
        };
        let made = created(&mut root, request).await;
        let input = format!("{}\n", made.secret);
        let fields =
            [("token", &*made.secret), ("scopes", "reports:read reports:*"), ("address", "192.0.2.7")];
        let page = person.post("/why", &fields).await.body;
        assert!(page.contains("Accepted"), "{page}");
        assert!(answer(&page, &input).await.contains("VALID"));
        answer(&person.get("/find").await.body, &input).await;
        assert_eq!(got(&mut root, &made.token.unwrap().id).await.state(), TokenState::Revoked);

        // The audit log, and a link.
        let page = person.get("/audit?user=ada&kind=revoked").await.body;
        assert!(answer(&page, "").await.contains("TOKEN_EVENT_KIND_REVOKED"));
        assert!(answer(&person.get("/sessions").await.body, "").await.contains("/link#"));
    }
}

fn form_urlencoded_reason() -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("reason", REASON).finish()
}
