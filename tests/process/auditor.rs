//! The operator's commands that show what happens: watch and audit.

use rustix::process::Signal;
use serde_json::Value;

use super::databases::Database;
use super::program::{TestDir, eventually, printed, run};
use super::rpc;

#[test]
fn a_watch_prints_changes_as_they_happen_and_its_position_at_the_end() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    for (flags, signal) in
        [(&["--json"][..], Signal::INT), (&["--json"], Signal::TERM), (&[], Signal::INT), (&[], Signal::TERM)]
    {
        let mut watch = test_dir.start(&[&["watch"], flags].concat(), &caller);
        // The first change may come before the watch has started.
        let mut ids = Vec::new();
        assert!(eventually(|| {
            ids.push(rpc::create(&address, &root, "ada").unwrap().token.unwrap().id);
            let printed = watch.stdout();
            ids.iter().any(|id| printed.contains(id))
        }));

        watch.signal(signal);

        assert!(watch.end().success(), "{}", watch.stderr());
        let position = if flags.is_empty() {
            watch.stderr().split_once("position: ").unwrap().1.trim().to_owned()
        } else {
            let last: Value = serde_json::from_str(watch.stdout().lines().last().unwrap()).unwrap();
            last["position"].as_str().unwrap().to_owned()
        };
        let id = rpc::create(&address, &root, "grace").unwrap().token.unwrap().id;
        let mut again = test_dir.start(&["watch", "--after", &position], &caller);
        assert!(eventually(|| again.stdout().contains(&id)), "{}", again.stderr());
        again.signal(signal);
        assert!(again.end().success());
    }
    assert!(server.stop().success());
}

#[test]
fn a_killed_watch_has_printed_its_position() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    let mut watch = test_dir.start(&["watch", "--json"], &caller);
    let mut ids = Vec::new();
    assert!(eventually(|| {
        ids.push(rpc::create(&address, &root, "ada").unwrap().token.unwrap().id);
        watch.stdout().contains("\"position\"")
    }));
    watch.kill();

    let printed = watch.stdout();
    let last_position = printed.lines().rev().find(|line| line.starts_with("{\"position\"")).unwrap();
    let position: Value = serde_json::from_str(last_position).unwrap();
    let position = position["position"].as_str().unwrap();
    let mut again = test_dir.start(&["watch", "--json", "--after", position], &caller);
    // Everything after the position, and nothing before it.
    let (before, _) = printed.split_once(last_position).unwrap();
    // It began after some of them were made.
    let printed_last = ids.iter().rposition(|id| before.contains(&**id)).unwrap();
    let (first, rest) = (&ids[printed_last], &ids[printed_last + 1..]);
    let newest = rpc::create(&address, &root, "grace").unwrap().token.unwrap().id;
    assert!(eventually(|| again.stdout().contains(&newest)), "{}", again.stderr());
    let shown = again.stdout();
    assert!(
        rest.iter().all(|id| shown.contains(&**id)) && !shown.contains(&**first),
        "{ids:?}, then {shown}"
    );
    again.kill();
}

#[test]
fn the_audit_log_is_listed_and_its_seals_are_checked() {
    let (database, test_dir) = (Database::new(), TestDir::new());
    let keys = printed(run(&["keygen"], &[], ""));
    let url = database.url();
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();
    let mut server = test_dir.start(&["serve", "--listen", "127.0.0.1:0"], &shared);
    let address = server.ready();
    let id = rpc::create(&address, &root, "ada").unwrap().token.unwrap().id;
    server.await_log("audit log sealed");

    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    let listed = printed(run(&["audit", "list", "--token", &id, "--json"], &caller, ""));
    assert!(
        listed.contains("\"kind\":\"TOKEN_EVENT_KIND_CREATED\"") && listed.contains(&root[5..27]),
        "{listed}"
    );
    let checked = || run(&["audit", "verify"], &shared, "");
    assert!(printed(checked()).contains("0 seals are for purged events"));

    let purge = || run(&["audit", "purge", "--older-than-days", "30"], &shared, "");
    assert_eq!(printed(purge()), "0 events deleted\n");
    let dry_run = run(&["audit", "purge", "--older-than-days", "30", "--dry-run"], &shared, "");
    assert_eq!(printed(dry_run), "0 events would be deleted\n");
    let plan = run(&["audit", "purge", "--older-than-days", "30", "--plan"], &shared, "");
    assert_eq!(plan.status.code(), Some(2), "it is another command's flag");

    // Older, so that they would be deleted.
    database.execute("UPDATE token_events SET event_time = event_time - interval '60 days'");
    for found in [checked(), purge()] {
        assert_eq!(found.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&found.stderr).contains("altered"), "{found:?}");
    }
    let left = run(&["audit", "list", "--token", &id, "--json"], &caller, "");
    assert!(printed(left).contains("\"kind\":\"TOKEN_EVENT_KIND_CREATED\""));
    assert!(server.stop().success());
}

#[test]
fn a_position_may_begin_with_a_hyphen() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    let mut watch = test_dir.start(&["watch", "--after", "-S"], &caller);
    assert!(!watch.end().success());
    assert!(watch.stderr().contains("after"), "{}", watch.stderr());
    assert!(!watch.stderr().contains("unexpected argument"), "{}", watch.stderr());
    assert!(server.stop().success());
}
