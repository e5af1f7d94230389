//! Two adjacent versions concurrently on one schema. `TOKEND_PREVIOUS` names the previous release's
//! program, which `.ci/previous` builds once there is a release; until then this build is used
//! instead, which shows that a schema is shared and migrated while it is served.

use tokend::api::proto::Verdict;

use super::databases::Database;
use super::program::{PROGRAM, TestDir, printed, run, run_of};
use super::rpc;

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

#[test]
fn the_previous_version_runs_in_parallel_and_can_be_restored() {
    let previous = std::env::var("TOKEND_PREVIOUS").unwrap_or_else(|_| PROGRAM.to_owned());
    let test_dir = TestDir::new();
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];
    let root = printed(run_of(&previous, &["bootstrap"], &shared, "")).trim_end().to_owned();
    let mut old = test_dir.start_of(&previous, &SERVE, &shared);
    let old_address = old.ready();
    let before = rpc::create(&old_address, &root, "ada").unwrap();

    run(&["migrate"], &shared, "");
    let mut new = test_dir.start(&[&SERVE[..], &["--no-migrate"]].concat(), &shared);
    let new_address = new.ready();

    let revoke = |program: &str, address: &str, id: &str| {
        let caller = [("TOKEND_ADDRESS", address), ("TOKEND_SECRET", &*root)];
        printed(run_of(program, &["token", "revoke", id], &caller, ""));
    };
    let eventually_refused = |address: &str, secret: &str| {
        let refused = || rpc::verdict(address, &root, secret) == Verdict::Revoked;
        assert!(super::program::eventually(refused), "the other version does not hear of it");
    };
    let after = rpc::create(&new_address, &root, "ada").unwrap();
    for address in [&old_address, &new_address] {
        assert_eq!(rpc::verdict(address, &root, &before.secret), Verdict::Valid);
        assert_eq!(rpc::verdict(address, &root, &after.secret), Verdict::Valid);
        assert_eq!(rpc::list(address, &root).unwrap().len(), 3);
    }
    revoke(PROGRAM, &old_address, &before.token.unwrap().id);
    eventually_refused(&new_address, &before.secret);
    revoke(&previous, &new_address, &after.token.unwrap().id);
    eventually_refused(&old_address, &after.secret);

    // Back to the previous version, on this version's schema.
    new.stop();
    old.stop();
    let mut again = test_dir.start_of(&previous, &SERVE, &shared);
    let again = again.ready();
    assert_eq!(rpc::verdict(&again, &root, &after.secret), Verdict::Revoked);
    let late = rpc::create(&again, &root, "ada").unwrap();
    assert_eq!(rpc::verdict(&again, &root, &late.secret), Verdict::Valid);
}

#[test]
fn migrate_plan_lists_migrations_and_changes_nothing() {
    let database = Database::new();
    let (url, keys) = (database.url(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];

    let planned = printed(run(&["migrate", "--plan"], &shared, ""));
    let again = printed(run(&["migrate", "--plan"], &shared, ""));
    printed(run(&["migrate"], &shared, ""));
    let done = printed(run(&["migrate", "--plan"], &shared, ""));

    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = planned.lines().map(words).collect();
    for line in
        ["0001 installation - - -", "0011 sealed purges audit_seals ACCESS EXCLUSIVE while it is read"]
    {
        assert!(lines.iter().any(|found| found == line), "{planned}");
    }
    assert_eq!(planned, again);
    assert_eq!(done.lines().count(), 1, "a heading alone: {done}");
}
