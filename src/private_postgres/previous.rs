//! Cleans up after an earlier run that was killed: stops a postmaster that still runs, and makes sure
//! that its pid file does not prevent a start. Called under the lock.
//!
//! The pid file is never removed: Postgres reads from it which shared memory the killed server used,
//! and refuses to start while one of its backends still lives.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, test_kill_process};

use super::account::Account;
use super::binaries::Binaries;
use super::error::PrivatePostgresError;

/// Seconds for a fast shutdown of the earlier server, and then for an immediate one.
const SHUTDOWNS: [(&str, &str); 2] = [("fast", "60"), ("immediate", "10")];
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Stops the server of an earlier run on the data, if there is one.
pub(super) fn end(data: &Path, account: &Account, binaries: &Binaries) -> Result<(), PrivatePostgresError> {
    let Some(pid) = recorded_postmaster(data)? else {
        return Ok(());
    };
    for (mode, seconds) in SHUTDOWNS {
        if ended_within(Duration::ZERO, pid, data) {
            break;
        }
        tracing::info!(postgres.pid = pid.as_raw_pid(), mode, "stopping the postgres of an earlier run");
        // As the account: it owns the pid file, and root must not signal a process named there.
        let program = binaries.pg_ctl();
        account
            .command(&program)
            .args(["stop", "--silent", "--mode", mode, "--timeout", seconds, "--pgdata"])
            .arg(data)
            .output()
            .map_err(PrivatePostgresError::io("run", &program))?;
        // A server removes its pid file, which `pg_ctl` waits for, a moment before it exits.
        if ended_within(SHUTDOWN_WAIT, pid, data) {
            break;
        }
    }
    if serves(pid, data) {
        return Err(PrivatePostgresError::StillRunning {
            directory: data.to_owned(),
            pid: pid.as_raw_pid().unsigned_abs(),
        });
    }
    // A server that has shut down has removed its pid file, even if nobody reaps its process.
    if exists(pid) && recorded_postmaster(data)? == Some(pid) {
        disown(data, account)?;
    }
    Ok(())
}

fn recorded_postmaster(data: &Path) -> Result<Option<Pid>, PrivatePostgresError> {
    let path = data.join("postmaster.pid");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.lines().next().and_then(|line| line.trim().parse().ok());
            Ok(number.filter(|&pid: &i32| pid > 0).and_then(Pid::from_raw))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PrivatePostgresError::io("read", &path)(error)),
    }
}

fn ended_within(limit: Duration, pid: Pid, data: &Path) -> bool {
    let deadline = Instant::now() + limit;
    while serves(pid, data) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(3));
    }
    true
}

fn exists(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Returns whether the process is a Postgres on `data`: after a restart of the machine or container the
/// recorded pid may belong to any process.
#[cfg(target_os = "linux")]
fn serves(pid: Pid, data: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;

    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|&byte| byte == 0).any(|argument| argument == data.as_os_str().as_bytes())
}

#[cfg(not(target_os = "linux"))]
fn serves(pid: Pid, data: &Path) -> bool {
    std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p"])
        .arg(pid.to_string())
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&*data.to_string_lossy()))
}

/// Replaces a recorded pid that now belongs to another process by this process's: Postgres treats its
/// parent's as stale, but any other living one as a server and would never start.
fn disown(data: &Path, account: &Account) -> Result<(), PrivatePostgresError> {
    let path = data.join("postmaster.pid");
    let script = r#"{ echo "$2"; tail -n +2 "$1"; } >"$1.new" && mv "$1.new" "$1""#;
    let output = account
        .command("sh")
        .args(["-c", script, "sh"])
        .arg(&path)
        .arg(std::process::id().to_string())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(error),
    }
    .map_err(PrivatePostgresError::io("rewrite", &path))
}
