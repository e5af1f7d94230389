//! The disposable Postgres that the tests of a binary share: started at the first use, gone with
//! the process however that ends. A janitor, a child that outlives the process, removes the
//! directory; a later run removes what a killed janitor left.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend::private_postgres::{Cluster, Durability};

/// Where directories are made: in memory, where each new database costs a third less than on a disk, or on a disk.
/// Both are short, and accessible to the account that runs Postgres; TMPDIR may be neither.
const MEMORY: &str = "/dev/shm";
const DISK: &str = "/tmp";
/// What the databases of all tests of a binary take, and more, in mebibytes.
const ENOUGH_MEMORY: u64 = 12 << 10;
const PREFIX: &str = "tokend-test-";
/// A directory without a held lock may be one that another test binary has just created.
const OLD_ENOUGH_TO_SWEEP: Duration = Duration::from_mins(1);
/// Waits until the process at the other end of its input ends, then for its Postgres.
const JANITOR: &str = r#"
cat >/dev/null
pid_file=$1/postgres/postmaster.pid
if [ -e "$pid_file" ]; then
    kill -QUIT "$(head -n 1 "$pid_file")"
fi
tries=0
while [ -e "$pid_file" ] && [ "$tries" -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
"#;

struct Disposable {
    cluster: Cluster,
    // Its input is closed when this process ends, however it ends.
    _janitor: Child,
}

/// Returns the cluster of this test binary; the first call starts it.
pub(crate) fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Disposable> = OnceLock::new();
    &SHARED.get_or_init(start).cluster
}

/// Returns the options to connect to `database` on the cluster as its superuser.
pub(crate) fn connect_options(database: &str) -> PgConnectOptions {
    connect_through(cluster().socket_dir(), database)
}

/// Returns the options to connect to `database` through the socket in this directory.
pub(crate) fn connect_through(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(Cluster::PORT)
        .username(Cluster::ROLE)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Creates a directory for a Postgres, and starts a janitor that ends that Postgres and removes the
/// directory.
#[expect(clippy::expect_used, reason = "without a database no test can run")]
pub(crate) fn directory() -> (PathBuf, Child) {
    let directory = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir_in(parent())
        .expect("a directory for Postgres")
        .keep();
    let janitor = hire_janitor(&directory).expect("a shell that cleans up");
    fs::set_permissions(&directory, Permissions::from_mode(0o711)).expect("permissions for Postgres");
    (directory, janitor)
}

/// Returns the memory file system, if it has enough free space, or else the disk.
fn parent() -> &'static str {
    let free = Command::new("df").args(["--block-size=1M", "--output=avail", MEMORY]).output();
    let free = free.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let free = free.and_then(|text| text.lines().last()?.trim().parse().ok());
    if free.is_some_and(|mebibytes: u64| mebibytes >= ENOUGH_MEMORY) { MEMORY } else { DISK }
}

#[expect(clippy::expect_used, reason = "without a database no test can run")]
fn start() -> Disposable {
    sweep();
    let (directory, janitor) = directory();
    let cluster = Cluster::start(&directory, Durability::Disposable).expect("a Postgres for the tests");
    Disposable { cluster, _janitor: janitor }
}

fn hire_janitor(directory: &Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", JANITOR, "sh"])
        .arg(directory)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not reached by the Ctrl-C that ends the tests.
        .process_group(0)
        .spawn()
}

/// Removes what killed runs have left; what cannot be removed is left for a later run.
fn sweep() {
    let entries =
        [MEMORY, DISK].into_iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let directory = entry.path();
        if is_abandoned(&directory) && has_no_postgres(&directory) {
            let _ = fs::remove_dir_all(&directory);
        }
    }
}

fn is_abandoned(directory: &Path) -> bool {
    let age = fs::metadata(directory).and_then(|found| found.modified()).map(|time| time.elapsed());
    if !matches!(age, Ok(Ok(age)) if age > OLD_ENOUGH_TO_SWEEP) {
        return false;
    }
    match OpenOptions::new().write(true).open(directory.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Ends a server that may have survived, as a start does: the recorded process id alone may by now
/// belong to another process.
fn has_no_postgres(directory: &Path) -> bool {
    !directory.join("postgres/postmaster.pid").exists()
        || Cluster::start(directory, Durability::Disposable).and_then(Cluster::stop).is_ok()
}
