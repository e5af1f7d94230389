//! The console in a real browser: Chromium, driven by playwright-core, does what people do.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokend::api::origin::Origin;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, Policy, UpdatePolicyRequest, Verdict};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::command_line::Terminal;
use super::links::link;
use super::portal::{backend, portal_link};
use crate::support::client::{created, ordinary, texts, verified};
use crate::support::program::{find, find_at, free_address};
use crate::support::replica::{Installation, Replica, wait_until_serving};
use crate::tls::authority::{Authority, Files, channel};

/// How long a scenario may take; it is ended then.
const TIMEOUT: Duration = Duration::from_mins(3);

/// What drives the browser: the program of JavaScript, and the browser.
fn driver() -> Option<(PathBuf, PathBuf)> {
    find_at("tests/console/browser/node_modules/playwright-core")?;
    find_at("tests/console/browser/node_modules/pa11y")?;
    Some((find("node")?, find("chromium")?))
}

/// Runs a scenario of `drive.mjs`; returns what it saw.
async fn drive((node, chromium): &(PathBuf, PathBuf), scenario: &str, mut settings: Value) -> Value {
    settings["chromium"] = chromium.to_str().into();
    settings["pictures"] = std::env::var("TOKEND_PICTURES").ok().into();
    let mut child = Command::new(node)
        .args(["drive.mjs", scenario])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/console/browser"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(settings.to_string().as_bytes()).await.unwrap();
    let output = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the verdict on the secret that a scenario copied.
async fn verdict(replica: &Replica, seen: &Value) -> Verdict {
    verified(&mut replica.root(), seen["secret"].as_str().unwrap(), &[]).await.verdict()
}

fn settings(replica: &Replica, origin: &str) -> Value {
    json!({"origin": origin, "secret": replica.installation.root_secret})
}

#[tokio::test]
async fn a_person_clicks_from_administration_to_the_new_token_in_the_list() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let origin = format!("http://tokend.localhost:{}", replica.console.port());

    let seen = drive(&driver, "clicks", settings(&replica, &origin)).await;

    assert_eq!(verdict(&replica, &seen).await, Verdict::Revoked);
}

#[tokio::test]
async fn the_same_clicks_work_without_script() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let origin = format!("http://localhost:{}", replica.console.port());

    let seen = drive(&driver, "plain", settings(&replica, &origin)).await;

    assert_eq!(verdict(&replica, &seen).await, Verdict::Revoked);
}

/// Creates tokens for people to act on, in an organization with a policy; returns the settings of a scenario.
async fn with_tokens(replica: &Replica) -> Value {
    let mut root = replica.root();
    let policy = Policy {
        longest_lifetime: Some(prost_types::Duration { seconds: 90 * 86_400, nanos: 0 }),
        allowed_scopes: texts(&["reports:*", "logs:read"]),
        most_active_tokens_per_user: 10,
        ..Default::default()
    };
    let request = UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(policy) };
    root.update_policy(request).await.unwrap();
    let mut old = String::new();
    for (name, user_id, days) in [
        ("nightly export", "Ada Lovelace", 60),
        ("آدا لاولیس <b>", "grace", 2),
        ("staging", "Charles", 90),
        ("phone", "Charles", 30),
        ("laptop", "Ada Lovelace", 30),
    ] {
        let ttl = Expiration::Ttl(prost_types::Duration { seconds: days * 86_400, nanos: 0 });
        let request = CreateTokenRequest {
            organization_id: "acme".to_owned(),
            user_id: user_id.to_owned(),
            name: name.to_owned(),
            scopes: texts(&["reports:read", "logs:read"]),
            expiration: Some(ttl),
            ..Default::default()
        };
        old = created(&mut root, request).await.token.unwrap().id;
    }
    let origin = format!("http://tokend.localhost:{}", replica.console.port());
    let mut settings = settings(replica, &origin);
    settings["old"] = old.into();
    settings
}

#[tokio::test]
async fn a_person_acts_on_tokens_with_script_and_without() {
    let Some(driver) = driver() else { return };
    for scenario in ["acts", "actsPlainly"] {
        let replica = Replica::start().await;

        let seen = drive(&driver, scenario, with_tokens(&replica).await).await;

        let verdict = verdict(&replica, &seen).await;
        assert_eq!(verdict, if scenario == "acts" { Verdict::Revoked } else { Verdict::Valid });
    }
}

#[tokio::test]
async fn a_person_signs_in_by_a_link_and_sees_the_sessions() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let origin = format!("http://tokend.localhost:{}", replica.console.port());
    let mut settings = settings(&replica, &origin);
    settings["links"] = json!([link(&mut replica.root()).await, link(&mut replica.root()).await]);

    drive(&driver, "link", settings).await;

    assert_eq!(replica.installation.database.count("SELECT count(*) FROM console_sessions").await, 0);
}

#[tokio::test]
async fn every_other_page_is_used_with_script_and_without() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let origin = format!("http://tokend.localhost:{}", replica.console.port());
    let request = CreateTokenRequest { scopes: texts(&["reports:read"]), ..ordinary() };
    let leaked = created(&mut replica.root(), request).await.secret;
    created(&mut replica.root(), ordinary()).await;
    verified(&mut replica.root(), &leaked, &[]).await;
    verified(&mut replica.root(), &leaked, &["reports:write"]).await;
    let mut settings = settings(&replica, &origin);
    settings["leaked"] = leaked.into();

    drive(&driver, "rooms", settings).await;
}

#[tokio::test]
async fn what_others_do_appears_in_an_open_list_and_nothing_moves() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let origin = format!("http://tokend.localhost:{}", replica.console.port());
    for name in ["first", "second", "third"] {
        created(&mut replica.root(), CreateTokenRequest { name: name.to_owned(), ..ordinary() }).await;
    }
    let request = CreateTokenRequest { name: "watched".to_owned(), ..ordinary() };
    let id = created(&mut replica.root(), request).await.token.unwrap().id;
    let mut settings = settings(&replica, &origin);
    settings["name"] = "watched".into();
    settings["id"] = id.into();

    drive(&driver, "live", settings).await;
}

#[tokio::test]
async fn a_secret_is_copied_on_a_plain_name_and_over_tls() {
    let Some(driver) = driver() else { return };
    // A name that browsers do not trust, led here by the browser's own rule.
    let name = "console.example.test";
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.console_origin = Some(Origin::parse(&format!("http://{name}")).unwrap());
    let plain = installation.serve(config).await;
    let mut config = installation.config();
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), None);
    config.tls = Some(files.load());
    let encrypted = installation.launch(config);
    wait_until_serving(channel(&encrypted, &authority, None)).await;

    for (replica, origin, secure) in [
        (&plain, format!("http://{name}"), false),
        (&encrypted, format!("https://localhost:{}", encrypted.console.port()), true),
    ] {
        let mut settings = settings(replica, &origin);
        settings["secure"] = secure.into();
        settings["flags"] = json!([format!("--host-resolver-rules=MAP {name} {}", plain.console)]);
        let seen = drive(&driver, "copy", settings).await;
        assert_eq!(verdict(&plain, &seen).await, Verdict::Valid);
    }
}

#[tokio::test]
async fn a_person_allows_tokend_login_with_script_and_without() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    for words in [&[][..], &["--no-browser"][..]] {
        let terminal = Terminal::new(replica.address);
        let (mut login, url) = terminal.asks(words).await;
        let mut settings = settings(&replica, "");
        settings["url"] = url.into();
        settings["typed"] = (!words.is_empty()).into();

        let seen = drive(&driver, "login", settings).await;

        if !words.is_empty() {
            login.type_line(seen["code"].as_str().unwrap()).await;
        }
        let (done, said) = login.ended().await;
        assert!(done && said.contains("Logged in as root until"), "{said}");
    }
}

#[tokio::test]
async fn a_portal_session_is_opened_beside_an_application() {
    let Some(driver) = driver() else { return };
    let replica = Replica::start().await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let mut settings = settings(&replica, &format!("http://tokend.localhost:{}", replica.console.port()));
    settings["links"] = json!([portal_link(&mut backend, "ada", &["reports:*"]).await]);

    let seen = drive(&driver, "linked", settings).await;

    assert_eq!(verdict(&replica, &seen).await, Verdict::Valid);
}

#[tokio::test]
async fn a_portal_session_is_embedded_by_listed_origins_and_nobody_else() {
    let Some(driver) = driver() else { return };
    let (allowed, foreign) =
        (format!("http://{}", free_address()), format!("http://localhost:{}", free_address().port()));
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.console_embedders = vec![Origin::parse(&allowed).unwrap()];
    let replica = installation.serve(config).await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let mut settings = settings(&replica, &format!("http://tokend.localhost:{}", replica.console.port()));
    let mut links = Vec::new();
    for _ in 0..3 {
        links.push(portal_link(&mut backend, "ada", &["reports:*"]).await);
    }
    settings["links"] = json!(links);
    (settings["allowed"], settings["foreign"]) = (allowed.into(), foreign.into());

    let seen = drive(&driver, "embedded", settings).await;

    assert_eq!(verdict(&replica, &seen).await, Verdict::Valid);
}
