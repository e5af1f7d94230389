//! The private Postgres, with this machine's real one: here its start and its refusals, in
//! `recovery` its end, and what it does with the remains of a killed run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod recovery;
mod test_dir;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::PathBuf;

use rustix::process::geteuid;
use tokend::private_postgres::{Cluster, Durability, PrivatePostgresError};

use self::test_dir::{ask, start, test_dir};

#[test]
fn a_first_start_creates_a_durable_database_only_on_a_socket() {
    let test_dir = test_dir();

    let cluster = start(&test_dir).unwrap();

    assert_eq!(ask(&cluster, "SHOW fsync"), "on");
    assert_eq!(ask(&cluster, "SHOW listen_addresses"), "");
    assert_eq!(ask(&cluster, "SHOW server_encoding"), "UTF8");
    assert_eq!(ask(&cluster, "SELECT current_user::text"), Cluster::ROLE);
    for name in ["postgres", "postgres-socket"] {
        let mode = fs::metadata(test_dir.data_dir().join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn a_restart_keeps_the_data() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 'yes' AS answer");
    cluster.stop().unwrap();

    let cluster = start(&test_dir).unwrap();

    assert_eq!(ask(&cluster, "SELECT answer FROM kept"), "yes");
}

#[test]
fn a_second_start_on_the_same_directory_is_refused() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();

    let refused = start(&test_dir).unwrap_err();

    assert!(matches!(refused, PrivatePostgresError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(test_dir.data_dir().to_str().unwrap()));
    assert_eq!(ask(&cluster, "SELECT 'undisturbed'"), "undisturbed");
}

#[test]
fn data_of_another_major_version_is_refused_with_both_versions() {
    let test_dir = test_dir();
    start(&test_dir).unwrap().stop().unwrap();
    fs::write(test_dir.data_dir().join("postgres/PG_VERSION"), "13\n").unwrap();

    let refused = start(&test_dir).unwrap_err();

    assert!(matches!(refused, PrivatePostgresError::OtherMajor { data: 13, .. }));
    assert!(refused.to_string().contains("Postgres 13"), "{refused}");
    assert!(refused.to_string().contains(test_dir.data_dir().to_str().unwrap()));
}

#[test]
fn the_log_of_a_server_that_does_not_start_is_quoted() {
    let test_dir = test_dir();
    start(&test_dir).unwrap().stop().unwrap();
    fs::write(test_dir.data_dir().join("postgres/postgresql.auto.conf"), "no_such_setting = 1\n").unwrap();

    let failed = start(&test_dir).unwrap_err();

    assert!(matches!(failed, PrivatePostgresError::Start { .. }), "{failed}");
    assert!(failed.to_string().contains("no_such_setting"), "{failed}");
}

#[test]
fn a_directory_too_deep_for_a_socket_is_refused() {
    let test_dir = test_dir();
    let deep = test_dir.data_dir().join("d".repeat(90));

    let refused = Cluster::start(&deep, Durability::Durable).unwrap_err();

    assert!(matches!(refused, PrivatePostgresError::PathTooLong { .. }), "{refused}");
}

#[test]
fn a_directory_with_a_comma_a_space_and_a_quote_is_served() {
    let test_dir = test_dir();
    let odd = test_dir.data_dir().join("a, \"b");

    let cluster = Cluster::start(&odd, Durability::Disposable).unwrap();

    assert_eq!(ask(&cluster, "SHOW fsync"), "off");
}

#[test]
fn as_root_a_directory_that_postgres_cannot_reach_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let test_dir = test_dir();
    fs::set_permissions(test_dir.directory(), Permissions::from_mode(0o700)).unwrap();

    let refused = start(&test_dir).unwrap_err();

    assert!(matches!(refused, PrivatePostgresError::Unreachable { .. }), "{refused}");
}

#[test]
#[cfg(target_os = "linux")]
fn the_server_has_no_privileges_and_sees_nothing_of_the_environment() {
    let test_dir = test_dir();
    let cluster = start(&test_dir).unwrap();
    let process = PathBuf::from(format!("/proc/{}", cluster.postmaster_pid()));

    let status = fs::read_to_string(process.join("status")).unwrap();
    let environment = fs::read(process.join("environ")).unwrap();

    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.trim_start_matches(name).trim().to_owned()
    };
    assert!(!line("Uid:").split_whitespace().any(|id| id == "0"));
    if geteuid().is_root() {
        assert!(!line("Gid:").split_whitespace().any(|id| id == "0"));
        assert_eq!(line("Groups:"), "");
        assert_eq!(line("CapEff:"), "0000000000000000");
    }
    // Cargo sets several such variables for this test.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO_"));
}

/// The id of no user on any system that runs the tests.
const OTHER_UID: u32 = 54321;

#[test]
fn as_root_files_of_another_account_are_neither_trusted_nor_run() {
    if !geteuid().is_root() {
        return;
    }
    for name in ["", "keyring", "root-secret", "lock", "postgres.log", "postgres", "postgres-socket"] {
        let test_dir = test_dir();
        start(&test_dir).unwrap().stop().unwrap();
        let path = if name.is_empty() { test_dir.data_dir() } else { test_dir.data_dir().join(name) };
        if !path.exists() {
            fs::write(&path, "").unwrap();
        }
        chown(&path, Some(OTHER_UID), Some(OTHER_UID)).unwrap();

        let refused = start(&test_dir).unwrap_err();

        let found = matches!(&refused, PrivatePostgresError::OfAnotherAccount { path: at, owner: OTHER_UID } if *at == path);
        assert!(found, "{name}: {refused}");
        assert!(refused.to_string().contains("chown"), "{refused}");
    }
}

#[test]
fn as_root_a_link_is_followed_only_if_nobody_else_controls_it() {
    if !geteuid().is_root() {
        return;
    }
    let test_dir = test_dir();
    let (real, link) = (test_dir.directory().join("real"), test_dir.data_dir());
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    start(&test_dir).unwrap().stop().unwrap();

    lchown(&link, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    let refused = start(&test_dir).unwrap_err();
    assert!(
        matches!(&refused, PrivatePostgresError::OfAnotherAccount { path, .. } if *path == link),
        "{refused}"
    );
    lchown(&link, Some(0), Some(0)).unwrap();
    chown(&real, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    let refused = start(&test_dir).unwrap_err();
    assert!(matches!(refused, PrivatePostgresError::OfAnotherAccount { .. }), "{refused}");
    chown(&real, Some(0), Some(0)).unwrap();
    for open in [test_dir.directory(), &real] {
        let mode = fs::metadata(open).unwrap().permissions();
        fs::set_permissions(open, Permissions::from_mode(0o777)).unwrap();
        let refused = start(&test_dir).unwrap_err();
        assert!(matches!(refused, PrivatePostgresError::WritableByOthers { .. }), "{refused}");
        fs::set_permissions(open, mode).unwrap();
    }
    start(&test_dir).unwrap();
}
