//! One run of the built program: its directory, its output in files, its end. Every wait has a deadline.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

use super::rpc;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tokend");
/// Generous: the machine may be busy with other tests.
const TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A directory that Postgres's account can access, removed at the end.
pub(crate) struct TestDir(TempDir);

impl TestDir {
    pub(crate) fn new() -> Self {
        // Not TMPDIR, which may be too deep for a socket or inaccessible to the account.
        let directory = tempfile::Builder::new().prefix("tokend-process-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn root_secret(&self) -> String {
        fs::read_to_string(self.data_dir().join("root-secret")).unwrap().trim_end().to_owned()
    }

    /// Writes a file with this mode and returns its path as text.
    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns the process id of the Postgres, from its own pid file.
    pub(crate) fn postmaster(&self) -> Pid {
        let text = fs::read_to_string(self.data_dir().join("postgres/postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
    }

    /// Starts `tokend serve` on this directory's data.
    pub(crate) fn serve(&self) -> Running {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().unwrap();
        let console = ["--console-listen", "127.0.0.1:0"];
        self.start(
            &[&["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir][..], &console].concat(),
            &[],
        )
    }

    /// Starts `tokend serve` on this directory's data, with a terminal as its standard output.
    pub(crate) fn serve_on_a_terminal(&self) -> (Running, Terminal) {
        let terminal = Terminal::open();
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().unwrap();
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--console-listen", "127.0.0.1:0", "--data-dir", data_dir];
        let running = self.start_on(PROGRAM, &arguments, &[], Some(terminal.end()));
        (running, terminal)
    }

    /// Starts the program with these environment variables only.
    pub(crate) fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.start_of(PROGRAM, arguments, variables)
    }

    /// Starts another build with these environment variables only.
    pub(crate) fn start_of(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.start_on(program, arguments, variables, None)
    }

    fn start_on(
        &self,
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        terminal: Option<File>,
    ) -> Running {
        let number = fs::read_dir(self.path()).unwrap().count();
        let stdout = self.path().join(format!("stdout-{number}"));
        let stderr = self.path().join(format!("stderr-{number}"));
        let child = command(program, arguments, variables)
            .stdin(Stdio::null())
            .stdout(terminal.unwrap_or_else(|| private(&stdout)))
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Running { child, stdout, stderr }
    }
}

/// Creates a file with access for its owner only, as is right for a printed secret.
fn private(path: &Path) -> File {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap()
}

/// A terminal, and its output so far.
pub(crate) struct Terminal {
    path: PathBuf,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = PathBuf::from(ptsname(&master, Vec::new()).unwrap().to_str().unwrap());
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let written = Arc::clone(&shown);
        // Until every holder of the other end has closed it.
        thread::spawn(move || {
            let mut master = File::from(master);
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = master.read(&mut buffer) {
                written.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { path, shown }
    }

    fn end(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    pub(crate) fn shown(&self) -> String {
        String::from_utf8(self.shown.lock().unwrap().clone()).unwrap()
    }
}

/// A run of the program; ended when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    pub(crate) fn stdout_name(&self) -> String {
        self.stdout.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Waits until the server listens, and returns its address.
    pub(crate) fn address(&mut self) -> String {
        let line = self.await_log("listening on 127.0.0.1:");
        let digits: String = line.chars().take_while(char::is_ascii_digit).collect();
        format!("http://127.0.0.1:{digits}")
    }

    /// Waits until the server's health is SERVING, and returns its address.
    pub(crate) fn ready(&mut self) -> String {
        let address = self.address();
        self.await_that("healthy", |_| rpc::is_serving(&address));
        address
    }

    /// Waits for a text in the log, and returns the rest of the log after it.
    pub(crate) fn await_log(&mut self, text: &str) -> String {
        self.await_that(text, |run| run.stderr().contains(text));
        self.stderr().split_once(text).unwrap().1.to_owned()
    }

    pub(crate) fn await_that(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(holds(self), "ended with {status}, not {what}:\n{}", self.stderr());
                return;
            }
            assert!(Instant::now() < deadline, "not {what} in time:\n{}", self.stderr());
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of the run.
    pub(crate) fn end(&mut self) -> ExitStatus {
        assert!(eventually(|| self.child.try_wait().unwrap().is_some()), "still runs:\n{}", self.stderr());
        self.child.wait().unwrap()
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Kills the server, as in a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The server of a failed test ends with its Postgres; it is killed if it does not end by itself.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
                thread::sleep(POLL_INTERVAL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a short command to its end, with this standard input.
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)], input: impl AsRef<[u8]>) -> Output {
    run_of(PROGRAM, arguments, variables, input)
}

/// Runs a short command to its end, without input and with this standard output.
pub(crate) fn run_into(arguments: &[&str], variables: &[(&str, &str)], stdout: impl Into<Stdio>) -> Output {
    command(PROGRAM, arguments, variables).stdin(Stdio::null()).stdout(stdout).output().unwrap()
}

/// Runs a short command of another build to its end, with this standard input.
pub(crate) fn run_of(
    program: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: impl AsRef<[u8]>,
) -> Output {
    let mut child = command(program, arguments, variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have closed it already.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

/// Returns the output of a command, which must have succeeded.
pub(crate) fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}

fn command(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap();
    command.args(arguments).env_clear().env("PATH", path);
    // The tests' Postgres, which is disposable.
    command.env("TOKEND_ALLOW_FSYNC_OFF", "true").envs(variables.iter().copied());
    command
}

/// Waits until a condition holds; returns whether it did in time.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}

/// Returns whether a process runs; a zombie does not.
pub(crate) fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    test_kill_process(pid).is_ok() && !is_zombie
}
