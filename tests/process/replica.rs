//! Serving as a replica on a shared Postgres: its start, and its waiting.

use std::os::unix::fs::symlink;

use tokend::api::proto::Verdict;
use tokend::private_postgres::Cluster;

use super::cluster::cluster;
use super::databases::Database;
use super::program::{TestDir, printed, run, text};
use super::rpc;

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

#[test]
fn replicas_share_a_database_and_a_keyring_and_have_no_own_state() {
    let test_dir = TestDir::new();
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();
    let (mut one, mut two) = (test_dir.start(&SERVE, &shared), test_dir.start(&SERVE, &shared));
    let (one, two) = (one.ready(), two.ready());

    let created = rpc::create(&one, &root, "ada").unwrap();

    assert_eq!(rpc::verdict(&two, &root, &created.secret), Verdict::Valid);
    assert!(!test_dir.data_dir().exists());
}

#[test]
fn bootstrap_creates_one_root_token_and_refuses_a_second() {
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];

    let first = printed(run(&["bootstrap"], &shared, ""));
    let second = run(&["bootstrap"], &shared, "");

    assert_eq!(first.lines().count(), 1);
    assert_eq!((second.status.code(), text(&second.stdout)), (Some(1), String::new()));
    assert!(text(&second.stderr).contains("an active root token exists"), "{}", text(&second.stderr));
}

#[test]
fn a_start_without_postgres_reports_what_it_waits_for_and_then_serves() {
    let test_dir = TestDir::new();
    let database = Database::new();
    let keys = printed(run(&["keygen"], &[], ""));
    let bootstrap = [("DATABASE_URL", &*database.url()), ("TOKEND_KEYS", &*keys)];
    let root = printed(run(&["bootstrap"], &bootstrap, "")).trim_end().to_owned();
    let sockets = test_dir.path().join("sockets");
    let url = database.url_through(&sockets);
    let mut server = test_dir.start(&SERVE, &[("DATABASE_URL", &url), ("TOKEND_KEYS", &keys)]);
    let address = server.address();
    server.await_log("waiting for the database");

    let early = rpc::list(&address, &root).unwrap_err();
    let healthy = rpc::is_serving(&address);
    symlink(cluster().socket_dir(), &sockets).unwrap();
    server.ready();

    assert_eq!(early.code(), tonic::Code::Unavailable);
    assert!(!healthy);
    assert_eq!(rpc::list(&address, &root).unwrap().len(), 1);
}

#[test]
fn a_start_that_waits_for_postgres_can_be_stopped() {
    let test_dir = TestDir::new();
    let nowhere = format!("postgres://{}@localhost/none?host={}", Cluster::ROLE, test_dir.path().display());
    let keys = printed(run(&["keygen"], &[], ""));
    let mut server = test_dir.start(&SERVE, &[("DATABASE_URL", &nowhere), ("TOKEND_KEYS", &keys)]);
    server.await_log("waiting for the database");

    assert_eq!(server.stop().code(), Some(0));
}
