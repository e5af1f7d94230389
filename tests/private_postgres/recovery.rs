//! Nothing outlives its owner, nothing runs twice on the same data, and after a kill the next start
//! recovers the data.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use tokend::private_postgres::{Cluster, Durability};

use super::test_dir::{TestDir, ask, start, test_dir};

/// Names the directory for the run of this binary that only owns a cluster and is then killed.
const OWNED_DIRECTORY: &str = "PRIVATE_POSTGRES_TEST_OWNED_DIRECTORY";

#[test]
fn a_killed_postmaster_is_noticed_and_the_next_start_recovers() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 'yes' AS answer");
    kill(cluster.postmaster_pid());
    assert!(within_seconds(5, || !cluster.is_running()));
    drop(cluster);

    let cluster = start(&test_dir).unwrap();

    assert_eq!(ask(&cluster, "SELECT answer FROM kept"), "yes");
}

#[test]
fn dropping_the_cluster_stops_the_server() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();
    let pid = cluster.postmaster_pid();

    drop(cluster);

    assert!(!exists(pid));
    assert!(!test_dir.data_dir().join("postgres/postmaster.pid").exists());
}

#[test]
fn a_panicking_owner_leaves_no_server() {
    let test_dir = test_dir();
    let data_dir = test_dir.data_dir();
    let owner = thread::spawn(move || {
        let cluster = Cluster::start(&data_dir, Durability::Durable).unwrap();
        std::panic::panic_any(cluster.postmaster_pid());
    });

    let pid = *owner.join().unwrap_err().downcast::<u32>().unwrap();

    assert!(!exists(pid));
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_owner_stops_its_server_and_the_next_start_recovers() {
    let test_dir = test_dir();
    let (mut owner, pid) = owning_process(&test_dir);

    owner.kill().unwrap();
    owner.wait().unwrap();

    // Immediately: the old server is still shutting down, and must end before the new one starts.
    let cluster = start(&test_dir).unwrap();
    assert!(!exists(pid));
    assert_eq!(ask(&cluster, "SELECT 'back'"), "back");
}

#[test]
#[ignore = "not a test: the process that another test kills"]
fn own_a_cluster_until_killed() {
    let Some(directory) = std::env::var_os(OWNED_DIRECTORY) else {
        return;
    };
    let cluster = Cluster::start(Path::new(&directory), Durability::Durable).unwrap();
    println!("\nowned {}", cluster.postmaster_pid());
    thread::sleep(Duration::from_mins(1));
}

/// Returns a server without an owner on the data of `test_dir`, and its pid file.
#[cfg(target_os = "linux")]
fn survivor(test_dir: &TestDir) -> (Child, PathBuf) {
    let cluster = start(test_dir).unwrap();
    let pid = cluster.postmaster_pid();
    let postgres = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    cluster.stop().unwrap();
    let data = test_dir.data_dir().canonicalize().unwrap().join("postgres");
    let survivor = as_owner_of(&data, &postgres)
        .arg("-D")
        .arg(&data)
        .args(["-c", "listen_addresses=", "-k"])
        .arg(data.with_file_name("postgres-socket"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid_file = data.join("postmaster.pid");
    assert!(within_seconds(10, || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.contains("ready"))
    }));
    (survivor, pid_file)
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_outlived_its_owner_is_stopped_before_a_new_one_starts() {
    let test_dir = test_dir();
    let (mut survivor, _) = survivor(&test_dir);

    let cluster = start(&test_dir).unwrap();

    assert!(survivor.try_wait().unwrap().is_some());
    assert_eq!(ask(&cluster, "SELECT 'alone'"), "alone");
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_writes_its_pid_file_while_another_starts_is_stopped_too() {
    let test_dir = test_dir();
    let (mut survivor, pid_file) = survivor(&test_dir);
    // As if the server had not written it yet when it was read.
    let record = fs::read(&pid_file).unwrap();
    fs::write(&pid_file, "").unwrap();
    let log = test_dir.data_dir().join("postgres.log");
    let writing = thread::spawn(move || {
        let refused =
            || fs::read_to_string(&log).is_ok_and(|text| text.contains("postmaster.pid\" is empty"));
        assert!(within_seconds(10, refused));
        fs::write(&pid_file, record).unwrap();
    });

    let cluster = start(&test_dir).unwrap();

    writing.join().unwrap();
    assert!(survivor.try_wait().unwrap().is_some());
    assert_eq!(ask(&cluster, "SELECT 'alone'"), "alone");
}

#[test]
fn a_pid_file_that_names_another_process_neither_blocks_a_start_nor_ends_that_process() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();
    let data = test_dir.data_dir().join("postgres");
    let pid_file = data.join("postmaster.pid");
    let left_behind = fs::read_to_string(&pid_file).unwrap();
    cluster.stop().unwrap();
    let mut other_process = as_owner_of(&data, "sleep").arg("60").spawn().unwrap();
    let (_, rest) = left_behind.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", other_process.id())).unwrap();
    let owner = fs::metadata(&data).unwrap();
    chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let started = start(&test_dir);

    let other_ended = other_process.try_wait().unwrap();
    other_process.kill().unwrap();
    other_process.wait().unwrap();
    assert_eq!(ask(&started.unwrap(), "SELECT 'in'"), "in");
    assert_eq!(other_ended, None);
}

#[test]
fn an_interrupted_first_start_is_repeated() {
    let test_dir = test_dir();
    let unfinished = test_dir.data_dir().join("postgres.new");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    fs::set_permissions(test_dir.data_dir(), Permissions::from_mode(0o711)).unwrap();

    let cluster = start(&test_dir).unwrap();

    assert_eq!(ask(&cluster, "SELECT 'whole'"), "whole");
    assert!(!unfinished.exists());
}

/// Starts this binary again as a process that owns the cluster of `test_dir`.
#[cfg(target_os = "linux")]
fn owning_process(test_dir: &TestDir) -> (Child, u32) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recovery::own_a_cluster_until_killed", "--ignored", "--nocapture"])
        .env(OWNED_DIRECTORY, test_dir.data_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("owned ")?.parse().ok());
    (owner, pid.unwrap())
}

/// Returns a command that runs as the owner of `data`.
fn as_owner_of(data: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if geteuid().is_root() {
        let owner = fs::metadata(data).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

fn kill(pid: u32) {
    kill_process(process(pid), Signal::KILL).unwrap();
}

/// Returns whether the process runs; a zombie does not.
fn exists(pid: u32) -> bool {
    if cfg!(target_os = "linux") {
        let arguments = fs::read(format!("/proc/{pid}/cmdline"));
        return arguments.is_ok_and(|arguments| !arguments.is_empty());
    }
    test_kill_process(process(pid)).is_ok()
}

fn within_seconds(seconds: u64, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    holds()
}
