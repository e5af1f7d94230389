//! External programs in tests: found or skipped, configured by the examples of the guides, and
//! ended with their test.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Finds a program; if it is missing, prints that, and fails with `CI_ALL=1`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ci-tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/usr/local/sbin".into(), tools]);
    or_skipped(name, places.iter().map(|test_dir| test_dir.join(name)).find(|program| program.is_file()))
}

/// Finds a program only among the tools of `.ci/tools`.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ci-tools/bin");
    or_skipped(name, Some(tools.join(name)).filter(|program| program.exists()))
}

/// Finds what `.ci/examples` puts at this path of the sources.
pub(crate) fn find_at(path: &str) -> Option<PathBuf> {
    or_skipped(
        path,
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).filter(|test_dir| test_dir.exists()),
    )
}

/// Returns a program that was found; if it is missing, prints that, and fails with `CI_ALL=1`.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn or_skipped(name: &str, found: Option<PathBuf>) -> Option<PathBuf> {
    if found.is_none() {
        let wanted = std::env::var_os("CI_ALL").is_some_and(|value| value == "1");
        assert!(!wanted, "{name} is missing, and CI_ALL=1 wants everything tested");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Returns the block of a guide that is marked as this file.
pub(crate) fn shown<'guide>(guide: &'guide str, file: &str) -> &'guide str {
    let (_, behind) = guide.split_once(&format!("<!-- file: {file} -->\n```")).unwrap();
    let (_, block) = behind.split_once('\n').unwrap();
    block.split_once("\n```").unwrap().0
}

/// Returns an unused address of this machine.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A directory for one program.
pub(crate) struct TestDir(TempDir);

impl TestDir {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("tokend-program-").tempdir_in("/tmp").unwrap();
        // A program that refuses root runs as another user.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a program in this directory.
    pub(crate) fn start(self, program: &Path, arguments: &[&str]) -> Running {
        self.start_with(program, arguments, &[])
    }

    /// Starts a program in this directory with these variables.
    pub(crate) fn start_with(
        self,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Running {
        let log = File::create(self.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, test_dir: self }
    }
}

/// A running program; ended when dropped.
pub(crate) struct Running {
    child: Child,
    test_dir: TestDir,
}

impl Running {
    /// Returns its output, to be shown if a test fails.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.test_dir.path().join("log")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Checks that it still runs.
    pub(crate) fn check(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended: {}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
