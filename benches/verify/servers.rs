//! The measured processes: tokend itself, and this program in its other roles. Each is ended by its
//! process id, at the latest when the run ends.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokend::api::proto::token_service_client::TokenServiceClient;
use tokend::api::proto::{VerifyRequest, VerifyResponse};
use tonic::Request;

use super::roles::{LISTEN, ROLE};
use super::workload::REQUIRED_SCOPE;

/// How long a server may take until it listens.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The tokend binary of this build.
pub(crate) const TOKEND: &str = env!("CARGO_BIN_EXE_tokend");

/// A server in a separate process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `tokend serve` on a database, with default settings; its log goes to a file.
    pub(crate) fn tokend(program: &Path, database_url: &str, key: &str, log: &Path) -> anyhow::Result<Self> {
        Self::tokend_with(&[], program, database_url, key, log)
    }

    /// Starts `tokend serve` on a database with these settings; its log goes to a file.
    pub(crate) fn tokend_with(
        settings: &[(String, String)],
        program: &Path,
        database_url: &str,
        key: &str,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = mortal(program);
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        command.arg("serve").env("DATABASE_URL", database_url).env("TOKEND_KEYS", key);
        command.env("TOKEND_LISTEN", address.to_string());
        command.stderr(OpenOptions::new().create(true).append(true).open(log)?);
        Self::start(command, address)
    }

    /// Starts a server to compare with.
    pub(crate) fn role(role: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = mortal(&env::current_exe()?);
        command.env(ROLE, role).env(LISTEN, address.to_string()).envs(settings.iter().copied());
        Self::start(command, address)
    }

    /// Starts Valkey, or else Redis, without a file of its data; `None` if neither is on the PATH.
    pub(crate) fn valkey() -> anyhow::Result<Option<Self>> {
        let path = env::var_os("PATH").unwrap_or_default();
        let programs = ["valkey-server", "redis-server"].into_iter();
        let mut programs = programs.flat_map(|name| env::split_paths(&path).map(move |dir| dir.join(name)));
        let Some(program) = programs.find(|program| program.is_file()) else { return Ok(None) };
        let address = free_address()?;
        let mut command = mortal(&program);
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).stdout(Stdio::null());
        Self::start(command, address).map(Some)
    }

    fn start(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().context("setpriv is needed (util-linux)")?;
        let mut server = Self { child, address };
        let deadline = Instant::now() + TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("a server ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("a server does not listen");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Verifies one token; repeats the call until the server is ready.
    pub(crate) async fn verify(&self, secret: &str, caller: &str) -> anyhow::Result<VerifyResponse> {
        let mut client = TokenServiceClient::connect(format!("http://{}", self.address)).await?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut request = Request::new(VerifyRequest {
                secret: secret.to_owned(),
                required_scopes: vec![REQUIRED_SCOPE.to_owned()],
                ..Default::default()
            });
            request.metadata_mut().insert("authorization", format!("Bearer {caller}").parse()?);
            match client.verify(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if Instant::now() > deadline => return Err(status.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Returns the CPU time that it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No effect if it has already ended. A tool that observes it must write its results before it
        // ends.
        if watched_by().is_empty() {
            let _ = self.child.kill();
        } else if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Returns the CPU time of a process's threads.
fn cpu_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Returns the CPU time of all running child processes of `parent`.
pub(crate) fn cpu_of_children(parent: u32) -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).map(cpu_of).sum()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything: the state, then the parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Makes a program end with the thread that starts it.
fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(watched_by()).arg(program);
    command
}

/// Returns the tool that runs the servers, with its arguments, for example `valgrind --tool=callgrind`.
fn watched_by() -> Vec<String> {
    env::var("TOKEND_BENCH_TOOL").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Finds a port that is currently free.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
