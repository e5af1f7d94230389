//! A page in a real browser: the generated client of examples/typescript, bundled, in Chromium.
//! From a listed origin it can do everything an admin does; from any other the browser blocks it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokend::api::origin::Origin;
use tokend::api::proto::ListTokensRequest;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::program::{Running, TestDir, find, find_at};
use crate::support::in_time;
use crate::support::replica::{Installation, Replica, wait_until_serving};
use crate::tls::authority::{Authority, Files, channel};

/// Flags that keep Chromium from other network access, and make it accept a test's certificate.
const FLAGS: [&str; 11] = [
    "--ignore-certificate-errors",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
];

/// A web server, and what its page reports.
struct Site {
    address: SocketAddr,
    results: mpsc::Receiver<Value>,
}

impl Site {
    /// Listens, but serves nothing yet.
    async fn bind() -> (TcpListener, Origin) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        (listener, origin)
    }

    /// Serves the page, which calls a replica with this URL scheme.
    fn serve(listener: TcpListener, script: String, scheme: &str, replica: &Replica) -> Self {
        let (sender, results) = mpsc::channel(1);
        let settings = json!({
            "tokend": format!("{scheme}://{}", replica.address),
            "secret": replica.installation.root_secret,
        });
        let page = Html(r#"<!doctype html><script type="module" src="/page.js"></script>"#);
        let router = Router::new()
            .route("/", get(async move || page))
            .route("/page.js", get(async move || ([(CONTENT_TYPE, "text/javascript")], script)))
            .route("/settings", get(async move || settings.to_string()))
            .route(
                "/result",
                post(async move |body: String| {
                    // The receiver may have timed out.
                    let _ = sender.send(serde_json::from_str(&body).unwrap()).await;
                }),
            );
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, results }
    }

    /// Opens the page in a separate browser; returns the page's report.
    async fn visit(&mut self, browser: &Path) -> Value {
        let test_dir = TestDir::new();
        let data = format!("--user-data-dir={}", test_dir.path().join("data").display());
        let page = format!("http://{}/", self.address);
        let arguments: Vec<&str> = FLAGS.into_iter().chain([&*data, &*page]).collect();
        let running: Running = test_dir.start(browser, &arguments);
        let result = in_time("what the page says", self.results.recv());
        tokio::select! {
            result = result => result.unwrap(),
            // Before the test's time limit, to show the browser's log.
            () = tokio::time::sleep(std::time::Duration::from_secs(19)) => panic!("{}", running.log()),
        }
    }
}

/// Finds the browser, and bundles the page for it, as a frontend's build does.
fn browser_and_page() -> Option<(PathBuf, String)> {
    let browser = find("chromium")?;
    let bundler = find_at("examples/typescript/node_modules/.bin/esbuild")?;
    find_at("examples/typescript/gen")?;
    let output = Command::new(bundler)
        .args(["src/page.ts", "--bundle", "--format=esm"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/typescript"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some((browser, String::from_utf8(output.stdout).unwrap()))
}

/// Checks that the page has seen a token's whole life.
#[track_caller]
fn went_well(printed: &Value) {
    let (id, secret) = (printed["id"].as_str().expect("a token"), printed["secret"].as_str().unwrap());
    assert!(secret.contains(id), "{printed}");
    assert_eq!(printed["shownAgain"], false);
    assert_eq!(printed["verdicts"], json!(["VALID", "MISSING_SCOPE", "REVOKED"]));
    assert_eq!(printed["revoked"], id);
    assert_eq!(printed["stranger"], "Unauthenticated");
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_call_from_a_browser() {
    let Some((browser, script)) = browser_and_page() else { return };
    let (listed, origin) = Site::bind().await;
    let (unlisted, _) = Site::bind().await;
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.integrations.web_origins = vec![origin];
    let replica = installation.serve(config).await;

    let printed = Site::serve(unlisted, script.clone(), "http", &replica).visit(&browser).await;

    assert!(printed["failed"].is_string(), "{printed}");
    let made = ListTokensRequest { user_id: "ada".to_owned(), ..ListTokensRequest::default() };
    assert!(replica.root().list_tokens(made).await.unwrap().into_inner().tokens.is_empty());

    went_well(&Site::serve(listed, script, "http", &replica).visit(&browser).await);
}

#[tokio::test]
async fn a_page_uses_http_2_over_tls() {
    let Some((browser, script)) = browser_and_page() else { return };
    let (listed, origin) = Site::bind().await;
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), None);
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.tls = Some(files.load());
    config.integrations.web_origins = vec![origin];
    let replica = installation.launch(config);
    wait_until_serving(channel(&replica, &authority, None)).await;

    went_well(&Site::serve(listed, script, "https", &replica).visit(&browser).await);
}
