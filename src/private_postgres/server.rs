//! The postmaster: its start, its readiness, and its end. It is forked by a dedicated thread, which
//! then waits for it: the signal that a server gets when its owner dies is tied to the thread that
//! forked it, not to the process.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::account::Account;
use super::binaries::Binaries;
use super::error::PrivatePostgresError;
use super::layout::{Layout, last_lines};
use super::previous;
use super::settings::{Durability, PORT, ROLE};

/// How long a server may take until it accepts connections, including a crash recovery.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// How long a fast shutdown may take before an immediate one.
const FAST_SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Longer than the 5 s after which the postmaster kills backends that do not obey.
const IMMEDIATE_SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);
const POLL_INTERVAL: Duration = Duration::from_millis(3);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// The log message for a backend of a killed server that still lives; it notices and exits soon.
const STILL_ATTACHED: &str = "pre-existing shared memory block";
/// The log message for another server that runs or starts: one of an earlier run, which was killed just
/// after starting it, and which has written its pid file only now.
const LOCKED_BY_ANOTHER: &str = r#"lock file "postmaster.pid""#;
/// How long such a server may take to write its pid file.
const OVERTAKEN_LIMIT: Duration = Duration::from_secs(10);

/// Creates the data: elsewhere first, so that an interrupted attempt never looks finished.
pub(super) fn initialise(
    layout: &Layout,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), PrivatePostgresError> {
    layout.fresh_unfinished_data(account)?;
    let program = binaries.initdb();
    let mut command = account.command_with_death_signal(&program, "KILL");
    settings_of_initdb(&mut command);
    command
        .arg(match durability {
            Durability::Durable => "--data-checksums",
            Durability::Disposable => "--no-sync",
        })
        .arg("--pgdata")
        .arg(layout.unfinished_data());
    let output = command.output().map_err(PrivatePostgresError::io("run", &program))?;
    if !output.status.success() {
        return Err(PrivatePostgresError::Initialise {
            directory: layout.root().to_owned(),
            output: last_lines(&output.stderr),
        });
    }
    layout.finish_data()
}

/// The settings of every private cluster.
pub(super) fn settings_of_initdb(command: &mut Command) {
    command.args(["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8"]).args([
        "--locale=C",
        "--no-instructions",
        "--username",
        ROLE,
    ]);
}

/// A postmaster started by this process.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    process: Arc<Process>,
}

#[derive(Debug, Default)]
struct Process {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    is_stopping: bool,
}

enum Startup {
    Ready,
    Ended,
    TimedOut,
}

impl Server {
    /// Starts a postmaster on the data and waits until it accepts connections.
    pub(super) fn start(
        layout: &Layout,
        account: &Account,
        binaries: &Binaries,
        durability: Durability,
    ) -> Result<Self, PrivatePostgresError> {
        let started_at = Instant::now();
        loop {
            let (log, length) = layout.open_log()?;
            let errors = log.try_clone().map_err(PrivatePostgresError::io("open", &layout.log()))?;
            let program = binaries.postgres();
            let mut command = postmaster(layout, account, &program, durability);
            command.stdout(log).stderr(errors);
            let server = Self::spawn(command).map_err(PrivatePostgresError::io("start", &program))?;
            let log = layout.log();
            match server.await_ready(layout, started_at + READY_LIMIT) {
                Startup::Ready => return Ok(server),
                Startup::Ended => {
                    let tail = layout.log_tail(length);
                    let now = Instant::now();
                    let overtaken = tail.contains(LOCKED_BY_ANOTHER) && now < started_at + OVERTAKEN_LIMIT;
                    if !(overtaken || tail.contains(STILL_ATTACHED) && now < started_at + READY_LIMIT) {
                        return Err(PrivatePostgresError::Start { log, tail });
                    }
                    thread::sleep(Duration::from_millis(100));
                    if overtaken {
                        previous::end(&layout.data(), account, binaries)?;
                    }
                }
                Startup::TimedOut => {
                    let tail = layout.log_tail(length);
                    server.stop(layout)?;
                    let seconds = READY_LIMIT.as_secs();
                    return Err(PrivatePostgresError::NotReady { seconds, log, tail });
                }
            }
        }
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        let process = Arc::new(Process::default());
        let (sender, receiver) = sync_channel(1);
        let owned = Arc::clone(&process);
        thread::Builder::new().name("postgres-owner".to_owned()).spawn(move || match command.spawn() {
            Ok(child) => own(child, &owned, &sender),
            Err(error) => drop(sender.send(Err(error))),
        })?;
        let pid = receiver.recv().map_err(io::Error::other)??;
        Ok(Self { pid, process })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(super) fn is_running(&self) -> bool {
        !self.process.lock().ended
    }

    fn await_ready(&self, layout: &Layout, deadline: Instant) -> Startup {
        let pid_file = layout.data().join("postmaster.pid");
        let mut report = Instant::now() + REPORT_INTERVAL;
        loop {
            if !self.is_running() {
                return Startup::Ended;
            }
            if accepts_connections(&pid_file, self.pid) {
                return Startup::Ready;
            }
            let now = Instant::now();
            if now > deadline {
                return Startup::TimedOut;
            }
            if now > report {
                report = now + REPORT_INTERVAL;
                tracing::info!(
                    log = %layout.log().display(),
                    "waiting for postgres to be ready; after a crash it first recovers"
                );
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Stops the postmaster and waits for it; one that has already ended is no error.
    pub(super) fn stop(&self, layout: &Layout) -> Result<(), PrivatePostgresError> {
        let steps = [(Signal::INT, FAST_SHUTDOWN_LIMIT), (Signal::QUIT, IMMEDIATE_SHUTDOWN_LIMIT)];
        for (signal, limit) in steps {
            let mut state = self.process.lock();
            state.is_stopping = true;
            if !state.ended {
                // Not reaped while the lock is held: the pid still belongs to the server. A server that
                // cannot be signalled is detected below, because it does not end.
                let _ = kill_process(self.pid, signal);
            }
            if self.process.ended_within(state, limit) {
                return Ok(());
            }
        }
        Err(PrivatePostgresError::StillRunning { directory: layout.data(), pid: self.pid() })
    }
}

impl Process {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended_within(&self, state: MutexGuard<'_, State>, limit: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(state, limit, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }
}

/// Reports the postmaster's pid, waits until it has ended, and records that.
fn own(mut child: Child, process: &Process, started: &SyncSender<io::Result<Pid>>) {
    let pid = Pid::from_child(&child);
    // The receiver is gone only if the starting thread has died with its process.
    let _ = started.send(Ok(pid));
    // NOWAIT leaves it unreaped, so that `stop` never signals a reused pid.
    let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), unreaped) {}
    let mut state = process.lock();
    let status = child.wait();
    state.ended = true;
    if !state.is_stopping {
        tracing::error!(postgres.pid = pid.as_raw_pid(), ?status, "private postgres has ended");
    }
    process.changed.notify_all();
}

/// Reads the postmaster's own status: the eighth line of its pid file.
fn accepts_connections(pid_file: &Path, pid: Pid) -> bool {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    lines.next().and_then(|line| line.parse().ok()) == Some(pid.as_raw_pid()) && lines.nth(6) == Some("ready")
}

fn postmaster(layout: &Layout, account: &Account, program: &Path, durability: Durability) -> Command {
    let (death_signal, settings): (_, &[&str]) = match durability {
        // INT is a fast shutdown, QUIT an immediate one, after which the next start recovers.
        Durability::Durable => ("INT", &["fsync=on", "full_page_writes=on", "synchronous_commit=on"]),
        // Autovacuum would visit each of the many databases of tests once a minute.
        Durability::Disposable => (
            "QUIT",
            &[
                "fsync=off",
                "full_page_writes=off",
                "synchronous_commit=off",
                "max_connections=300",
                "autovacuum=off",
            ],
        ),
    };
    let mut command = account.command_with_death_signal(program, death_signal);
    command
        .arg("-D")
        .arg(layout.data())
        .args(["-p", &PORT.to_string()])
        .args(["-c", "listen_addresses=", "-c"])
        .arg(setting_of_socket(layout.socket_directory()))
        .args(["-c", "unix_socket_permissions=0700"])
        .args(["-c", "cluster_name=tokend"])
        .args(["-c", "logging_collector=off", "-c", "log_destination=stderr"])
        // Terse: the details of an error would contain rows.
        .args(["-c", "log_error_verbosity=terse"])
        // Short queries gain nothing from JIT compilation, and a service manager may forbid memory that
        // is writable and executable.
        .args(["-c", "jit=off"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
}

/// The setting is a list of quoted names: a directory may contain a comma, a space or a quote.
fn setting_of_socket(directory: &Path) -> OsString {
    let mut setting = b"unix_socket_directories=\"".to_vec();
    for &byte in directory.as_os_str().as_bytes() {
        if byte == b'"' {
            setting.push(byte);
        }
        setting.push(byte);
    }
    setting.push(b'"');
    OsString::from_vec(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_directory_is_quoted_for_the_setting_that_is_a_list() {
        let setting = setting_of_socket(Path::new(r#"/a "b", c"#));

        assert_eq!(setting, r#"unix_socket_directories="/a ""b"", c""#);
    }
}
