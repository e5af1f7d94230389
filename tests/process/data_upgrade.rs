//! `tokend data upgrade`, with the real `pg_upgrade`: from Postgres 14, of which npm has only the
//! server, to this machine's version. The other programs of version 14 that `pg_upgrade` needs come
//! from Postgres 15, which has the same control file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tokend::api::proto::Verdict;

use super::program::{Running, TestDir, printed, run, text};
use super::rpc;

/// Debian's directory of the Postgres to upgrade to.
const NEW: &str = "/usr/lib/postgresql/15/bin";

/// Runs Postgres 15's program on a copy of the control file, with a version file that it accepts.
const PG_RESETWAL: &str = r#"#!/bin/sh
set -e
case "$*" in *-V*) exec "NEW/pg_resetwal" -V ;; esac
for data; do :; done
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -a "$data/global" "$data/pg_wal" "$copy"
echo 15 >"$copy/PG_VERSION"
"NEW/pg_resetwal" -n "$copy"
"#;

/// Returns a directory with Postgres 14's programs, or `None` if it or its successor is missing.
fn old_programs(test_dir: &TestDir) -> Option<PathBuf> {
    let found = std::env::var_os("TOKEND_POSTGRES_14").map(PathBuf::from);
    let Some(server) = found.filter(|_| Path::new(NEW).join("pg_upgrade").exists()) else {
        let wanted = std::env::var("CI_ALL").as_deref() == Ok("1");
        assert!(!wanted, "TOKEND_POSTGRES_14 must name what .ci/postgres 14 prints, beside {NEW}");
        return None;
    };
    let programs = test_dir.path().join("postgres-14");
    fs::create_dir(&programs).unwrap();
    for name in ["postgres", "initdb", "pg_ctl"] {
        symlink(server.join(name), programs.join(name)).unwrap();
    }
    symlink(Path::new(NEW).join("pg_controldata"), programs.join("pg_controldata")).unwrap();
    let resetwal = programs.join("pg_resetwal");
    fs::write(&resetwal, PG_RESETWAL.replace("NEW", NEW)).unwrap();
    fs::set_permissions(&resetwal, Permissions::from_mode(0o755)).unwrap();
    Some(programs)
}

/// Runs a command on the data directory, with these programs first in PATH.
fn start(test_dir: &TestDir, programs: &Path, arguments: &[&str]) -> Running {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let data_dir = test_dir.data_dir();
    let arguments = [arguments, &["--data-dir", data_dir.to_str().unwrap()]].concat();
    test_dir.start(&arguments, &[("PATH", &path)])
}

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

#[test]
fn an_upgrade_of_a_private_postgres_succeeds_after_being_killed_anywhere() {
    let test_dir = TestDir::new();
    let Some(old) = old_programs(&test_dir) else { return };
    let mut before = start(&test_dir, &old, &SERVE);
    let address = before.ready();
    let root = test_dir.root_secret();
    let made = rpc::create(&address, &root, "ada").unwrap();
    // After a crash, because `pg_upgrade` accepts only data that were shut down cleanly.
    before.kill();

    let upgrading = test_dir.data_dir().join("postgres.upgrade/data");
    let steps = [
        upgrading.join("PG_VERSION"),
        upgrading.join("pg_upgrade_output.d"),
        upgrading.join("postmaster.pid"),
    ];
    for step in steps {
        let mut upgrade = start(&test_dir, &old, &["data", "upgrade"]);
        upgrade.await_that("at its step", |_| step.exists());
        upgrade.kill();
    }
    let mut between = start(&test_dir, &old, &SERVE);
    let address = between.ready();
    assert_eq!(rpc::verdict(&address, &root, &made.secret), Verdict::Valid);
    between.stop();

    let mut upgrade = start(&test_dir, &old, &["data", "upgrade"]);
    assert!(upgrade.end().success(), "{}", upgrade.stderr());
    assert!(upgrade.stdout().contains("now belongs to Postgres 15"), "{}", upgrade.stdout());
    assert_eq!(fs::read_to_string(test_dir.data_dir().join("postgres/PG_VERSION")).unwrap(), "15\n");
    let kept = test_dir.data_dir().join("postgres-14");
    // If the upgrade is killed between its last two steps, the replaced data are where the new ones
    // were made.
    fs::create_dir(test_dir.data_dir().join("postgres.upgrade")).unwrap();
    fs::rename(&kept, &upgrading).unwrap();
    let again = start(&test_dir, Path::new(NEW), &["data", "upgrade"]).end();
    assert_eq!(again.code(), Some(1));
    assert!(kept.join("PG_VERSION").exists());

    let mut after = start(&test_dir, Path::new(NEW), &SERVE);
    let address = after.ready();
    assert_eq!(rpc::verdict(&address, &root, &made.secret), Verdict::Valid);
    let later = rpc::create(&address, &root, "ada").unwrap();
    assert_eq!(rpc::verdict(&address, &root, &later.secret), Verdict::Valid);
    let in_use = start(&test_dir, Path::new(NEW), &["data", "delete-old"]).end();
    assert_eq!(in_use.code(), Some(1));
    after.stop();
    assert!(start(&test_dir, Path::new(NEW), &["data", "delete-old"]).end().success());
    assert!(!kept.exists());
}

#[test]
fn an_upgrade_without_data_or_without_a_newer_postgres_says_so() {
    let test_dir = TestDir::new();
    let nowhere = test_dir.data_dir();
    let arguments = ["data", "upgrade", "--data-dir", nowhere.to_str().unwrap()];

    let refused = run(&arguments, &[], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is no data"), "{}", text(&refused.stderr));
    assert!(!nowhere.exists());

    let mut server = test_dir.serve();
    server.ready();
    let in_use = run(&arguments, &[], "");
    assert!(text(&in_use.stderr).contains("is in use by another tokend"), "{}", text(&in_use.stderr));
    server.stop();
    assert_eq!(printed(run(&["data", "delete-old", "--data-dir", nowhere.to_str().unwrap()], &[], "")), "");
}
