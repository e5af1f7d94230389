//! OAuth clients at introspection and revocation: how they authenticate (RFC 6749, 2.3.1), how they
//! are asked to, and real client libraries.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::asking::Fixture;
use super::program::{TestDir, find, find_tool};
use crate::support::client::created_with;
use crate::support::http::{Reply, post, send};

const PATHS: [&str; 2] = ["/oauth2/introspect", "/oauth2/revoke"];

/// A client, and another token of its organization.
struct Client {
    fixture: Fixture,
    id: String,
    secret: String,
    token: String,
}

impl Client {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let mut root = fixture.replica.root();
        let made = created_with(&mut root, "acme", &["tokend:verify"]).await;
        let token = created_with(&mut root, "acme", &[]).await.secret;
        Self { id: made.token.unwrap().id, secret: made.secret, token, fixture }
    }

    /// Posts a form to one of the paths, with these values of `Authorization`.
    async fn post(&self, path: &str, authorization: &[&str], fields: &[(&str, &str)]) -> Reply {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
        post(self.fixture.replica.http, path, &headers, fields).await
    }

    /// Returns the input for a client program.
    fn as_input(&self) -> String {
        let url = format!("http://{}", self.fixture.replica.http);
        json!({"url": url, "id": self.id, "secret": self.secret, "token": self.token}).to_string()
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

fn error(reply: &Reply) -> String {
    serde_json::from_str::<Value>(&reply.body).unwrap()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_id_and_a_secret_may_come_encoded_or_in_the_form() {
    let client = Client::new().await;
    let (id, secret) = (&*client.id, &*client.secret);
    // As encoded by oauth4webapi and openid-client, and in a form that no client needs.
    let encoded = secret.replace('_', "%5F");
    let all = id.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02x}"));
    let plain = BASE64_STANDARD.encode(format!("{id}:{secret}"));

    for path in PATHS {
        for (authorization, fields) in [
            (Some(basic(id, secret)), &[][..]),
            (Some(basic(id, &encoded)), &[]),
            (Some(basic(&all, &encoded)), &[]),
            (Some(format!("basic   {plain}")), &[]),
            (Some(basic(id, secret)), &[("client_id", id)]),
            (Some(format!("Bearer {secret}")), &[("client_id", id)]),
            (Some(format!("Bearer {secret}")), &[("client_id", ""), ("client_secret", "")]),
            (None, &[("client_id", id), ("client_secret", secret)]),
        ] {
            let mut all = vec![("token", "nonsense")];
            all.extend_from_slice(fields);
            let reply = client.post(path, authorization.as_deref().as_slice(), &all).await;
            assert_eq!(reply.status, 200, "{path} {authorization:?} {fields:?}: {reply:?}");
        }
        for (authorization, fields) in [
            (Some(basic("somebody", secret)), &[][..]),
            (Some(basic(id, &format!("{secret}&a=b"))), &[]),
            (Some(basic(id, &format!("{encoded}="))), &[]),
            (Some(basic(id, &format!("+{secret}"))), &[]),
            (Some(basic(&format!("{id}%3A{secret}"), "")), &[]),
            (Some(basic(id, &secret.replace('_', "%255F"))), &[]),
            (Some(basic(id, secret)), &[("client_id", "somebody")]),
            (Some(format!("Bearer {secret}")), &[("client_id", "somebody")]),
            (Some(format!("Basic {}", plain.trim_end_matches('='))), &[("client_id", "somebody")]),
            (None, &[("client_id", id)]),
            (None, &[("client_id", "somebody"), ("client_secret", secret)]),
            (None, &[("client_id", id), ("client_secret", "nonsense")]),
        ] {
            let mut all = vec![("token", &*client.token)];
            all.extend_from_slice(fields);
            let reply = client.post(path, authorization.as_deref().as_slice(), &all).await;
            assert_eq!(reply.status, 401, "{path} {authorization:?} {fields:?}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn two_credentials_at_once_are_an_invalid_request() {
    let client = Client::new().await;
    let (id, secret) = (&*client.id, &*client.secret);
    let (basic, bearer) = (basic(id, secret), format!("Bearer {secret}"));
    let posted = [("client_id", id), ("client_secret", secret)];

    for path in PATHS {
        for (authorization, fields) in [
            (&[&*basic][..], &posted[..]),
            (&[&*bearer], &posted),
            (&["Digest x"], &posted),
            (&[&*bearer], &posted[1..]),
            (&[], &posted[1..]),
            (&[], &[posted[0], posted[1], posted[1]]),
            (&[], &[posted[0], posted[0], posted[1]]),
            (&[&*basic], &[posted[0], posted[0]]),
        ] {
            let mut all = vec![("token", &*client.token)];
            all.extend_from_slice(fields);
            let reply = client.post(path, authorization, &all).await;
            assert_eq!((reply.status, &*error(&reply)), (400, "invalid_request"), "{path} {authorization:?}");
            assert!(!reply.body.contains(secret), "{reply:?}");
        }
        let reply = client.post(path, &[&*bearer, &*basic], &[("token", &client.token)]).await;
        assert_eq!(reply.status, 401, "{reply:?}");
        // A query would appear in logs, so credentials there do not count (RFC 6749, 2.3.1).
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let query = format!("{path}?client_id={id}&client_secret={secret}");
        assert_eq!(send(client.fixture.replica.http, "POST", &query, &headers, "token=x").await.status, 401);
    }
    let reply = client.post(PATHS[0], &[&bearer], &[("token", &client.token)]).await;
    assert!(reply.body.contains(r#""active":true"#), "nothing was revoked: {reply:?}");
}

#[tokio::test]
async fn an_unknown_caller_is_challenged_with_its_scheme_or_both() {
    let client = Client::new().await;
    let wrong = basic(&client.id, "wrong");
    let posted = [("client_id", &*client.id), ("client_secret", "wrong")];
    let asked = r#"Basic realm="tokend""#;

    for path in ["/oauth2/introspect", "/oauth2/revoke", "/tokenreview"] {
        for (authorization, fields, challenge, error_code) in [
            (&[&*wrong][..], &[][..], asked, "invalid_client"),
            (&["Basic !"], &[], asked, "invalid_client"),
            (&["Bearer wrong"], &[], r#"Bearer error="invalid_token""#, "invalid_token"),
            (&[], &[], r#"Bearer, Basic realm="tokend""#, "invalid_client"),
            (&["Digest x"], &[], r#"Bearer, Basic realm="tokend""#, "invalid_client"),
            (&[], &posted, r#"Bearer, Basic realm="tokend""#, "invalid_client"),
        ] {
            if path == "/tokenreview" && !fields.is_empty() {
                continue;
            }
            let reply = client.post(path, authorization, fields).await;
            let output_text = (reply.status, reply.header("www-authenticate").unwrap(), error(&reply));
            assert_eq!(
                (output_text.0, &*output_text.1, &*output_text.2),
                (401, challenge, error_code),
                "{path} {authorization:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_without_scopes_has_no_scope() {
    let client = Client::new().await;
    let bearer = format!("Bearer {}", client.secret);
    let reply = client.post("/oauth2/introspect", &[&bearer], &[("token", &client.token)]).await;
    let output_text = serde_json::from_str::<Value>(&reply.body).unwrap();
    // RFC 6749 (3.3) does not allow an empty scope.
    assert_eq!((&output_text["active"], output_text.get("scope")), (&json!(true), None), "{output_text}");
}

/// Runs a program with this input; returns its output.
async fn run(mut command: Command, input: String) -> String {
    let running = tokio::task::spawn_blocking(move || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = running.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that every client got the token as active, and inactive at the end.
#[track_caller]
fn check_clients(output_text: &str, names: &[&str]) {
    let output_text: Value = serde_json::from_str(output_text).unwrap();
    for name in names {
        assert_eq!(
            (&output_text[name]["active"], &output_text[name]["sub"]),
            (&json!(true), &json!("ada")),
            "{name}: {output_text}"
        );
    }
    assert_eq!(output_text["revoked"], json!({"active": false}), "{output_text}");
}

#[tokio::test]
async fn javascript_oauth_clients_authenticate_without_changes() {
    let Some(node) = find("node") else { return };
    let Some(packages) = find_tool("../node_modules/openid-client") else { return };
    let client = Client::new().await;
    let test_dir = TestDir::new();
    let program = test_dir.write("oauth.mjs", include_str!("../../.ci/clients/oauth.mjs"));
    symlink(packages.parent().unwrap(), test_dir.path().join("node_modules")).unwrap();
    let mut command = Command::new(node);
    command.arg(program);

    let output_text = run(command, client.as_input()).await;

    check_clients(
        &output_text,
        &["oauth4webapi, basic", "oauth4webapi, post", "openid-client", "openid-client, basic"],
    );
    let output_text: Value = serde_json::from_str(&output_text).unwrap();
    assert_eq!(output_text["wrong"], "OAUTH_WWW_AUTHENTICATE_CHALLENGE");
}

#[tokio::test]
async fn a_python_oauth_client_authenticates_without_changes() {
    let Some(python) = find_tool("python") else { return };
    let client = Client::new().await;
    let mut command = Command::new(python);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".ci/clients/oauth_client.py"));

    check_clients(&run(command, client.as_input()).await, &["client_secret_basic", "client_secret_post"]);
}

#[tokio::test]
async fn a_client_that_waits_for_a_challenge_gets_one() {
    let Some(curl) = find("curl") else { return };
    let client = Client::new().await;
    for (path, expected) in [("/oauth2/introspect", r#""active":true"#), ("/oauth2/revoke", "200")] {
        let mut command = Command::new(&curl);
        command.args(["--disable", "--silent", "--anyauth", "--write-out", "%{http_code}", "--config", "-"]);
        let input = format!(
            "url = \"http://{}{path}\"\nuser = \"{}:{}\"\ndata-urlencode = \"token={}\"\n",
            client.fixture.replica.http, client.id, client.secret, client.token
        );
        let output_text = run(command, input).await;
        assert!(output_text.contains(expected), "{path}: {output_text}");
    }
}
