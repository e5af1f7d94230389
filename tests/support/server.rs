//! A separate Postgres for one test, which may stop, kill, freeze and thaw it, and a standby of it.
//! Like the shared one, it goes with the tests' process, however that ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokend::private_postgres::{Cluster, Durability};

use super::cluster;

/// The server; it runs unless it was stopped or killed.
pub(crate) struct Server {
    directory: PathBuf,
    cluster: Option<Cluster>,
    _janitor: Child,
}

impl Server {
    /// Starts a server.
    pub(crate) fn start() -> Self {
        let (directory, janitor) = cluster::directory();
        let mut server = Self { directory, cluster: None, _janitor: janitor };
        server.go_on();
        server
    }

    /// Starts it again on its data.
    pub(crate) fn go_on(&mut self) {
        self.cluster = Some(Cluster::start(&self.directory, Durability::Disposable).unwrap());
    }

    /// Shuts it down cleanly.
    pub(crate) fn stop(&mut self) {
        self.cluster.take().unwrap().stop().unwrap();
    }

    /// Kills all of its processes at once, as a power failure would.
    pub(crate) fn kill(&mut self) {
        let processes = self.processes();
        // The postmaster first: it would start a recovery by itself.
        for pid in processes {
            // The process may have just ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(self.cluster.take());
    }

    /// Suspends all of its processes.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes them.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Returns its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.cluster.as_ref().unwrap().socket_dir()
    }

    /// Returns the postmaster and its children.
    fn processes(&self) -> Vec<Pid> {
        let postmaster = self.cluster.as_ref().unwrap().postmaster_pid();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let children = children.split_ascii_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(i32::try_from(postmaster).unwrap())
            .chain(children)
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A suspended server could not be stopped.
        if self.cluster.is_some() {
            self.thaw();
        }
    }
}

/// A server of another version, with its initial data.
pub(crate) struct Newer {
    socket_dir: PathBuf,
    _janitor: Child,
}

impl Newer {
    /// Starts the server with the programs in this directory.
    pub(crate) fn start(programs: &Path) -> Self {
        let (directory, janitor) = cluster::directory();
        let (data, socket_dir) = (directory.join("postgres"), directory.join("s"));
        fs::create_dir(&socket_dir).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            let owned = Command::new("chown").args(["-R", "postgres:"]).arg(&directory).status().unwrap();
            assert!(owned.success());
        }
        let settings = format!("-c listen_addresses= -c fsync=off -k {}", socket_dir.display());
        let log = directory.join("log");
        let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
        for arguments in [
            &["initdb", "--auth=trust", "--no-sync", "-U", Cluster::ROLE, "-D", data][..],
            &["pg_ctl", "start", "-w", "-l", log, "-o", &settings, "-D", data],
        ] {
            let program = programs.join(arguments[0]);
            let mut command = Command::new(if is_root { Path::new("runuser") } else { &program });
            if is_root {
                command.args(["-u", "postgres", "--"]).arg(&program);
            }
            command.args(&arguments[1..]).current_dir("/").stdin(Stdio::null());
            // To /dev/null: a server that inherited a pipe would keep it open.
            let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert!(done.success(), "{arguments:?}: {}", fs::read_to_string(log).unwrap_or_default());
        }
        Self { socket_dir, _janitor: janitor }
    }

    /// Returns the directory of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }
}

/// A standby that follows a server until it is promoted.
pub(crate) struct Standby {
    data: PathBuf,
    socket_dir: PathBuf,
    _janitor: Child,
}

impl Standby {
    /// Copies a running server and starts to follow it.
    pub(crate) fn of(server: &Server) -> Self {
        let (directory, janitor) = cluster::directory();
        let (data, socket_dir) = (directory.join("postgres"), directory.join("s"));
        let standby = Self { data, socket_dir, _janitor: janitor };
        let from = server.socket_dir().to_str().unwrap();
        let copy = [
            "-X",
            "stream",
            "-R",
            "--no-sync",
            "-c",
            "fast",
            "-U",
            Cluster::ROLE,
            "-p",
            "5432",
            "-h",
            from,
            "-D",
        ];
        let copied = Command::new("pg_basebackup").args(copy).arg(&standby.data).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        fs::create_dir(&standby.socket_dir).unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:"]).arg(&directory).status().unwrap();
            assert!(owned.success());
        }
        standby.go_on();
        standby
    }

    /// Starts it again on its data.
    pub(crate) fn go_on(&self) {
        let log = self.data.with_file_name("log");
        // A standby must not allow fewer connections than its primary.
        let settings = format!(
            "-c listen_addresses= -c fsync=off -c max_connections=1000 -k {}",
            self.socket_dir.display()
        );
        self.control(&["start", "-w", "-l", log.to_str().unwrap(), "-o", &settings]);
    }

    /// Kills all of its processes at once.
    pub(crate) fn kill(&self) {
        self.control(&["stop", "-w", "-m", "immediate"]);
    }

    /// Promotes it to an independent server.
    pub(crate) fn promote(&self) {
        self.control(&["promote", "-w"]);
    }

    /// Returns the directory of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    fn control(&self, arguments: &[&str]) {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "pg_ctl"]);
            command
        } else {
            Command::new("pg_ctl")
        };
        command.args(arguments).arg("-D").arg(&self.data).current_dir("/");
        // To /dev/null: a server that inherited a pipe would keep it open.
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = || fs::read_to_string(self.data.with_file_name("log")).unwrap_or_default();
        assert!(done.success(), "pg_ctl {arguments:?}: {}", log());
    }
}
