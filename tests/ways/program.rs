//! Programs that are not ours, as the tests run them: found or skipped, configured by what docs/ways-in.md shows,
//! ended with their test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const GUIDE: &str = include_str!("../../docs/ways-in.md");

/// Finds a program; where it is missing, says so, and fails if the whole of the tests is wanted.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ci-tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/usr/local/sbin".into(), tools]);
    let found = places.iter().map(|place| place.join(name)).find(|program| program.is_file());
    if found.is_none() {
        let wanted = std::env::var_os("CI_ALL").is_some_and(|value| value == "1");
        assert!(!wanted, "{name} is missing, and CI_ALL=1 wants everything tested");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Returns the block of the guide that is marked as this file.
pub(crate) fn shown(file: &str) -> &'static str {
    let (_, behind) = GUIDE.split_once(&format!("<!-- file: {file} -->\n```")).expect("a block of the guide");
    let (_, block) = behind.split_once('\n').unwrap();
    block.split_once("\n```").unwrap().0
}

/// Returns an address of this machine where nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A directory for one program.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("tokend-gateway-").tempdir_in("/tmp").unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a program here.
    pub(crate) fn start(self, program: &Path, arguments: &[&str]) -> Running {
        let log = File::create(self.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, place: self }
    }
}

/// A program; ended when dropped.
pub(crate) struct Running {
    child: Child,
    place: Place,
}

impl Running {
    /// Returns what it has written, to be shown where a test fails.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
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
