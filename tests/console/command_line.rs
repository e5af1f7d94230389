//! `tokend login` and `tokend logout` as people run them: the program itself, its file, and the console.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokend::api::proto::{TokenState, Verdict};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::logins::{self, ada};
use super::{Person, tokens_of};
use crate::support::client::{revoked, verified};
use crate::support::http::{Reply, send_by_name};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

/// A person's terminal: a home of its own, and the address of a server.
pub(super) struct Terminal {
    home: TempDir,
    address: String,
}

impl Terminal {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { home: tempfile::tempdir().unwrap(), address: format!("http://{address}") }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokend"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TOKEND_ADDRESS", &self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().await.unwrap()
    }

    /// Runs a command that must succeed; returns what it prints.
    async fn done(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; returns its message.
    async fn failed(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts to log in; returns the command, and the address of the page.
    pub(super) async fn asks(&self, words: &[&str]) -> (Login, String) {
        let mut child = self.command(&[&["login"], words].concat()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("http") {
            line.clear();
            let read = in_time("the address of the page", stderr.read_line(&mut line)).await.unwrap();
            assert!(read > 0, "no address");
        }
        let url = line.trim().to_owned();
        (Login { child, stderr }, url)
    }

    /// Logs in as a person who allows it.
    async fn log_in(&self, person: &Person) {
        let (login, url) = self.asks(&[]).await;
        assert_eq!(follow(&allowed(person, &url).await).await.status, 200);
        assert!(login.ended().await.0);
    }

    /// The only file with a login.
    fn file(&self) -> PathBuf {
        let logins = fs::read_dir(self.home.path().join(".local/state/tokend/logins")).unwrap();
        let mut files = logins.map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap()
    }

    fn stored(&self) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.file()).unwrap()).unwrap()
    }

    /// Changes a field of the stored login.
    fn set(&self, field: &str, value: serde_json::Value) {
        let mut stored = self.stored();
        stored[field] = value;
        fs::write(self.file(), stored.to_string()).unwrap();
    }
}

/// A `tokend login` that waits.
pub(super) struct Login {
    child: Child,
    stderr: BufReader<tokio::process::ChildStderr>,
}

impl Login {
    /// Types a line.
    pub(super) async fn type_line(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Waits for its end; returns whether it succeeded, and what else it has said.
    pub(super) async fn ended(mut self) -> (bool, String) {
        let mut said = String::new();
        in_time("the rest of its output", self.stderr.read_to_string(&mut said)).await.unwrap();
        (in_time("its end", self.child.wait()).await.unwrap().success(), said)
    }
}

/// Returns the query of a page's address.
fn query(url: &str) -> Vec<(String, String)> {
    let (_, query) = url.split_once('?').unwrap();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Allows what a page asks, as its form does; returns the next page.
async fn allowed(person: &Person, url: &str) -> String {
    let (_, path) = url.split_once("/login?").unwrap();
    let asked = person.get(&format!("/login?{path}")).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    let query = query(url);
    let fields: Vec<_> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
    let reply = person.post("/login", &fields).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

/// Goes where a page leads by itself.
async fn follow(page: &str) -> Reply {
    let (_, rest) = page.split_once("content=\"0; url=http://").unwrap();
    let address = rest.split('"').next().unwrap().replace("&#38;", "&");
    let (host, path) = address.split_once('/').unwrap();
    send_by_name(host.parse().unwrap(), host, "GET", &format!("/{path}"), &[], "").await
}

/// Returns the verdict on a secret.
async fn verdict(replica: &Replica, secret: &str) -> Verdict {
    verified(&mut replica.root(), secret, &[]).await.verdict()
}

#[tokio::test]
async fn a_person_logs_in_by_the_browser_and_out_again() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    for words in [&["token", "list"][..], &["login", "--status"], &["logout"]] {
        assert!(terminal.failed(words).await.contains("tokend login"), "{words:?}");
    }
    let (login, url) = terminal.asks(&["--lifetime", "1h"]).await;
    let answered = follow(&allowed(&person, &url).await).await;
    assert!(answered.body.contains("The terminal goes on"), "{}", answered.body);
    let (done, said) = login.ended().await;
    assert!(done && said.contains("Logged in as ada until "), "{said}");

    assert_eq!(fs::metadata(terminal.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let status = terminal.done(&["login", "--status"]).await;
    assert!(status.starts_with(&format!("logged in at {} as ada until ", terminal.address)), "{status}");
    let stored = terminal.stored();
    let (id, secret) = (stored["tokenId"].as_str().unwrap(), stored["secret"].as_str().unwrap().to_owned());
    assert!(!said.contains(&secret[30..]) && !url.contains(&secret[30..]));
    let create = ["token", "create", "--user", "ada", "--name", "n", "--ttl", "7d", "--scope", "repo:read"];
    assert!(terminal.done(&create).await.starts_with("tokd_"));
    assert!(terminal.done(&["token", "list"]).await.contains(id));
    // A secret in the environment wins, and no other server gets this one.
    let root = &replica.installation.root_secret;
    let other = terminal.command(&["token", "list"]).env("TOKEND_SECRET", root).output().await.unwrap();
    assert!(String::from_utf8(other.stdout).unwrap().contains("root"));
    let elsewhere = format!("http://localhost:{}", replica.address.port());
    let output =
        terminal.command(&["token", "list"]).env("TOKEND_ADDRESS", &elsewhere).output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("no secret of a caller"));
    // Logging in again ends the login before.
    terminal.log_in(&person).await;
    assert_eq!(verdict(&replica, &secret).await, Verdict::Revoked);

    let secret = terminal.stored()["secret"].as_str().unwrap().to_owned();
    let path = terminal.file();
    assert_eq!(verdict(&replica, &secret).await, Verdict::Valid);
    terminal.done(&["logout"]).await;
    assert_eq!(verdict(&replica, &secret).await, Verdict::Revoked);
    assert!(!path.exists());
    assert!(terminal.failed(&["token", "list"]).await.contains("tokend login"));
}

#[tokio::test]
async fn without_a_browser_here_the_person_types_the_code() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    let (mut login, url) = terminal.asks(&["--no-browser", "--scope", "repo:read"]).await;
    assert!(!url.contains("port=") && !url.contains("state="), "{url}");
    login.type_line(&format!("  {} ", logins::code(&allowed(&person, &url).await))).await;
    assert!(login.ended().await.0);
    let id = terminal.stored()["tokenId"].clone();
    let tokens = tokens_of(&replica, "ada").await;
    let login = tokens.iter().find(|token| id == *token.id).unwrap();
    assert_eq!(login.grant.as_ref().unwrap().scopes, ["repo:read"]);
    terminal.done(&["token", "list"]).await;

    for bad in ["", "x", "AAAAAAAAAAAAAAAAAAAAAA"] {
        let (mut login, _) = terminal.asks(&["--no-browser"]).await;
        login.type_line(bad).await;
        let (done, said) = login.ended().await;
        assert!(!done && said.contains("log"), "{bad}: {said}");
    }
    assert!(terminal.stored()["secret"].is_string(), "the login before stays");
}

#[tokio::test]
async fn a_login_that_is_not_allowed_stores_nothing() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    let (login, url) = terminal.asks(&[]).await;
    let (_, path) = url.split_once("/login?").unwrap();
    let page = person.get(&format!("/login?{path}")).await.body;
    let (_, cancel) = page.split_once("<a href=\"http://").unwrap();
    let cancel = format!("content=\"0; url=http://{}\"", cancel.split('"').next().unwrap());
    follow(&cancel).await;
    let (done, said) = login.ended().await;
    assert!(!done && said.contains("not allowed in the browser"), "{said}");

    // Somebody else's answer is none, even with a code that is good for another login.
    let (login, url) = terminal.asks(&[]).await;
    let forged = allowed(&person, &url).await;
    let state = query(&url).iter().find(|(name, _)| name == "state").unwrap().1.clone();
    assert_eq!(follow(&forged.replace(&state, "AAAAAAAAAAAAAAAAAAAAAA")).await.status, 404);
    let (other, other_url) = terminal.asks(&[]).await;
    let theirs = allowed(&person, &other_url).await;
    follow(&forged.replace(logins::code(&forged), logins::code(&theirs))).await;
    let (done, said) = login.ended().await;
    assert!(!done && said.contains("LOGIN_CODE_INVALID"), "{said}");
    drop(other);
    assert!(terminal.failed(&["login", "--status"]).await.contains("not logged in"));
}

#[tokio::test]
async fn commands_at_once_renew_a_login_once_and_its_end_stays() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    terminal.log_in(&person).await;
    for round in 1..=3 {
        let before = terminal.stored();
        terminal.set("renewTime", 0.into());
        let lists: Vec<_> = (0..6).map(|_| terminal.command(&["token", "list"]).spawn().unwrap()).collect();
        for list in lists {
            let output = list.wait_with_output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let after = terminal.stored();
        assert_ne!(after["secret"], before["secret"]);
        assert_eq!((&after["previousId"], &after["expireTime"]), (&before["tokenId"], &before["expireTime"]));
        let logins = tokens_of(&replica, "ada")
            .await
            .into_iter()
            .filter(|token| token.name.starts_with("tokend login"));
        assert_eq!(logins.count(), round + 1, "one rotation for all commands");
        // What a command has read before goes on for a while.
        assert_eq!(verdict(&replica, before["secret"].as_str().unwrap()).await, Verdict::Valid);
        assert_eq!(verdict(&replica, after["secret"].as_str().unwrap()).await, Verdict::Valid);
    }
    // Logging out ends also the secret before.
    let (last, secret) = (terminal.stored()["previousId"].as_str().unwrap().to_owned(), terminal.stored());
    terminal.done(&["logout"]).await;
    assert_eq!(verdict(&replica, secret["secret"].as_str().unwrap()).await, Verdict::Revoked);
    let tokens = tokens_of(&replica, "ada").await;
    let previous = tokens.iter().find(|token| token.id == last).unwrap();
    assert_eq!(previous.state(), TokenState::Revoked);
}

/// Opens a port that leads to a server and withholds its answers while `held` says so.
async fn holding(server: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (held, holds) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut holds = holds.clone();
            tokio::spawn(async move {
                let (mut from, mut to) = client.into_split();
                let (mut answers, mut requests) = TcpStream::connect(server).await.unwrap().into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut requests).await });
                let mut bytes = [0; 4096];
                while let Ok(read) = answers.read(&mut bytes).await
                    && read > 0
                    && holds.wait_for(|held| !held).await.is_ok()
                    && to.write_all(&bytes[..read]).await.is_ok()
                {}
            });
        }
    });
    (address, held)
}

#[tokio::test]
async fn a_command_that_is_killed_while_it_renews_loses_nothing() {
    let replica = Replica::start().await;
    let (address, held) = holding(replica.address).await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(address));
    terminal.log_in(&person).await;
    let before = terminal.stored();
    terminal.set("renewTime", 0.into());
    held.send_replace(true);
    let mut killed = terminal.command(&["token", "list"]).spawn().unwrap();
    // Renewed at the server; the answer never comes.
    let rotated = "SELECT count(*) FROM tokens WHERE rotated_from IS NOT NULL";
    eventually("the rotation", async || {
        (replica.installation.database.count(rotated).await == 1).then_some(())
    })
    .await;
    killed.kill().await.unwrap();
    assert_eq!(terminal.stored()["secret"], before["secret"], "nothing was written");
    held.send_replace(false);

    terminal.done(&["token", "list"]).await;

    let after = terminal.stored();
    assert_eq!(after["previousId"], before["tokenId"]);
    assert_eq!(replica.installation.database.count(rotated).await, 1, "the same secret again");
    assert_eq!(verdict(&replica, after["secret"].as_str().unwrap()).await, Verdict::Valid);
    terminal.done(&["token", "list"]).await;
}

#[tokio::test]
async fn a_login_that_has_ended_says_what_to_do() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    terminal.log_in(&person).await;
    revoked(&mut replica.root(), terminal.stored()["tokenId"].as_str().unwrap(), "lost").await;
    for renew_time in [i64::MAX, 0] {
        terminal.set("renewTime", renew_time.into());
        let message = terminal.failed(&["token", "list"]).await;
        assert!(message.contains("has ended: run `tokend login`"), "{message}");
    }
    let path = terminal.file();
    terminal.done(&["logout"]).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_logout_that_reaches_no_server_keeps_the_login_unless_it_is_forced() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    terminal.log_in(&person).await;
    let path = terminal.file();
    replica.shut_down().outcome().await.unwrap();

    let message = terminal.failed(&["logout"]).await;
    assert!(message.contains("still logged in") && message.contains("cannot reach"), "{message}");
    assert!(path.exists());
    terminal.done(&["logout", "--force"]).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_others_can_read_is_not_used() {
    let replica = Replica::start().await;
    let (person, terminal) = (ada(&replica).await, Terminal::new(replica.address));
    terminal.log_in(&person).await;
    let path = terminal.file();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    for words in [&["token", "list"][..], &["login"], &["login", "--status"], &["logout"]] {
        let message = terminal.failed(words).await;
        assert!(message.contains("only you can use"), "{words:?}: {message}");
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(terminal.failed(&["token", "list"]).await.contains("only you can use"));
    fs::remove_file(&path).unwrap();
    terminal.log_in(&person).await;
    terminal.done(&["token", "list"]).await;
}
