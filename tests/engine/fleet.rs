//! Replicas as real processes: the built program on one database, with a channel to each; a test
//! may freeze and thaw them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::setup::Made;
use crate::support::client::{Client, bearing};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Installation;

/// What it writes to standard error, in a directory of its own.
const LOG: &str = "log";

/// One process; killed at the end.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    root_secret: String,
    log: TempDir,
}

impl Process {
    /// Starts the program with this URL of the installation's database, and waits until it serves.
    pub(crate) async fn start(installation: &Installation, database_url: &str, flags: &[&str]) -> Self {
        let log = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tokend"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn,tokend=info"])
            .args(flags)
            .env_clear()
            .env("DATABASE_URL", database_url)
            .env("TOKEND_KEYS", &installation.key)
            .env("TOKEND_ALLOW_FSYNC_OFF", "true")
            // As in the other tests, because many tokens are created.
            .envs([("TOKEND_ARGON2_MEMORY_KIB", "64"), ("TOKEND_ARGON2_ITERATIONS", "1")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log.path().join(LOG)).unwrap())
            .spawn()
            .unwrap();
        let url = String::new();
        let mut process = Self { child, url, root_secret: installation.root_secret.clone(), log };
        process.url = format!("http://{}", process.listens("listening on ").await);
        let mut root = process.root();
        let root_token = Made { id: String::new(), secret: process.root_secret.clone() };
        eventually("the program answers", async || {
            let question = crate::support::client::question(&root_token.secret, &[]);
            root.verify(question).await.ok().map(|_| ())
        })
        .await;
        process
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns where it listens for HTTP.
    pub(crate) async fn http(&self) -> SocketAddr {
        self.listens("HTTP on ").await
    }

    /// Returns where it serves the console, which `--console-listen` must have turned on.
    pub(crate) async fn console(&self) -> SocketAddr {
        let port = self.logged("console at http://tokend.localhost:").await;
        (Ipv4Addr::LOCALHOST, port.trim_end_matches('/').parse().unwrap()).into()
    }

    /// Waits until it says behind these words where it listens.
    async fn listens(&self, words: &str) -> SocketAddr {
        self.logged(words).await.parse().unwrap()
    }

    /// Waits for these words in the log; returns the rest of their line.
    async fn logged(&self, words: &str) -> String {
        eventually("the program listens", async || {
            let text = fs::read_to_string(self.log.path().join(LOG)).unwrap();
            let (line, _) = text.split_once(words)?.1.split_once('\n')?;
            Some(line.to_owned())
        })
        .await
    }

    /// Returns the secret of the root token.
    pub(crate) fn root_secret(&self) -> &str {
        &self.root_secret
    }

    /// Returns the root token; its id is not needed.
    pub(crate) fn root_token(&self) -> Made {
        Made { id: String::new(), secret: self.root_secret.clone() }
    }

    /// Returns a separate channel, which connects on first use.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url.clone()).unwrap().connect_lazy()
    }

    /// Returns a client with all rights.
    pub(crate) fn root(&self) -> Client {
        bearing(self.channel(), &[&format!("Bearer {}", self.root_secret)])
    }

    /// Kills the process (SIGKILL), as in a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Freezes the process (SIGSTOP).
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets the process continue.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the URL of a database through its server's own socket.
pub(crate) fn url(database: &Database) -> String {
    let socket = database.socket_dir().display();
    format!(
        "postgres://{}@localhost/{}?host={socket}",
        tokend::private_postgres::Cluster::ROLE,
        database.name()
    )
}

/// Returns whether the long forms are to be run.
pub(crate) fn long() -> bool {
    std::env::var_os("TOKEND_LONG").is_some()
}

/// Prints a measurement of a long form.
#[expect(clippy::print_stderr, reason = "what was measured is for a person")]
pub(crate) fn report(what: &str) {
    eprintln!("{what}");
}
