//! After a kill the server comes back with its data, and never runs twice on the same data.

use rustix::process::{Signal, kill_process};
use tokend::api::proto::Verdict;

use super::program::{Running, TestDir, eventually, is_running};
use super::rpc;

#[test]
fn a_killed_tokend_starts_again_with_its_data_and_one_postgres() {
    let test_dir = TestDir::new();
    let (mut killed, kept) = serve_and_create(&test_dir);
    let old = test_dir.postmaster();

    killed.kill();

    let mut next = test_dir.serve();
    let address = next.ready();
    assert_eq!(rpc::verdict(&address, &test_dir.root_secret(), &kept), Verdict::Valid);
    assert_ne!(test_dir.postmaster(), old);
    assert!(!is_running(old));
    assert!(is_running(test_dir.postmaster()));
}

#[test]
fn a_tokend_killed_together_with_its_postgres_recovers() {
    let test_dir = TestDir::new();
    let (mut killed, kept) = serve_and_create(&test_dir);
    let old = test_dir.postmaster();

    kill_process(old, Signal::KILL).unwrap();
    killed.kill();
    assert!(eventually(|| !is_running(old)));

    let mut next = test_dir.serve();
    let address = next.ready();
    assert_eq!(rpc::verdict(&address, &test_dir.root_secret(), &kept), Verdict::Valid);
    assert_eq!(next.stdout(), "");
}

#[test]
fn a_killed_postgres_is_restarted() {
    let test_dir = TestDir::new();
    let (mut server, kept) = serve_and_create(&test_dir);
    let (address, root) = (server.address(), test_dir.root_secret());
    let old = test_dir.postmaster();

    kill_process(old, Signal::KILL).unwrap();

    assert!(eventually(|| server.stderr().matches("private postgres is ready").count() == 2));
    assert!(eventually(|| rpc::verify(&address, &root, &kept).is_ok()));
    assert_eq!(rpc::verdict(&address, &root, &kept), Verdict::Valid);
    let new = test_dir.postmaster();
    assert!(server.stop().success());
    assert!(!is_running(old) && !is_running(new));
}

#[test]
fn a_first_start_killed_at_any_stage_leaves_one_root_token_for_the_next() {
    let test_dir = TestDir::new();
    let root_secret = test_dir.data_dir().join("root-secret");
    for stage in ["", "postgres.new", "postgres", "keyring", "root-secret"] {
        let mut killed = test_dir.serve();
        let reached = test_dir.data_dir().join(stage);
        // If a stage was too short to be seen, the last one is reached.
        let seen = eventually(|| reached.exists() || root_secret.exists());
        assert!(seen, "{stage}: {}", killed.stderr());
        killed.kill();
    }

    let mut next = test_dir.serve();
    let address = next.ready();

    assert_eq!(rpc::list(&address, &test_dir.root_secret()).unwrap().len(), 1);
}

#[test]
fn a_second_tokend_on_the_same_directory_says_so_and_ends() {
    let test_dir = TestDir::new();
    let mut first = test_dir.serve();
    let address = first.ready();

    let mut second = test_dir.serve();
    let status = second.end();

    assert_eq!(status.code(), Some(1));
    assert!(second.stderr().contains("is in use by another tokend"), "{}", second.stderr());
    assert!(rpc::is_serving(&address));
}

fn serve_and_create(test_dir: &TestDir) -> (Running, String) {
    let mut server = test_dir.serve();
    let address = server.ready();
    let secret = rpc::create(&address, &test_dir.root_secret(), "ada").unwrap().secret;
    (server, secret)
}
