//! An operator's work on the private Postgres of serve: look at it, create another root token, back
//! it up and restore it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tokend::api::proto::Verdict;

use super::program::{TestDir, printed, run, text};
use super::rpc;

fn on(test_dir: &Path, line: &str) -> std::process::Output {
    let line = line.replace("DATA", test_dir.to_str().unwrap());
    run(&line.split_ascii_whitespace().collect::<Vec<_>>(), &[], "")
}

#[test]
fn commands_work_on_a_private_postgres_whether_it_is_served_or_not() {
    let test_dir = TestDir::new();
    let data = test_dir.data_dir();
    let absent = on(&data, "key status --data-dir DATA");
    assert_eq!(absent.status.code(), Some(1));
    assert!(!data.exists(), "nothing is made: {}", text(&absent.stderr));

    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let id = rpc::create(&address, &root, "ada").unwrap().token.unwrap().id;
    server.await_log("audit log sealed");
    for served in [true, false] {
        if !served {
            assert!(server.stop().success());
        }
        let keys = printed(on(&data, "key status --data-dir DATA --json"));
        assert!(keys.contains("\"position\":1,\"tokens\":\"2\""), "served: {served}: {keys}");
        let seals = printed(on(&data, "audit verify --data-dir DATA"));
        assert!(seals.contains("0 seals are for purged events"), "served: {served}: {seals}");
        let purged = printed(on(&data, "audit purge --data-dir DATA --older-than-days 30"));
        assert_eq!(purged, "0 events deleted\n", "served: {served}");
        let exists = on(&data, "bootstrap --data-dir DATA");
        assert!(text(&exists.stderr).contains("an active root token exists"), "{}", text(&exists.stderr));
    }

    // From the environment, too; but never together with a database URL.
    let named = [("TOKEND_DATA_DIR", data.to_str().unwrap())];
    assert!(printed(run(&["key", "status"], &named, "")).contains("POSITION"));
    let both = on(&data, "key status --data-dir DATA --database-url postgres://u@localhost/d");
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));

    // After every root token is revoked, another is created.
    let mut server = test_dir.serve();
    let address = server.ready();
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    printed(run(&["token", "create", "--user", "u", "--name", "n", "--ttl", "1h"], &caller, ""));
    let revoke = run(&["token", "revoke", "--from-stdin"], &caller, &root);
    assert!(revoke.status.success(), "{}", text(&revoke.stderr));
    let another = printed(on(&data, "bootstrap --data-dir DATA"));
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", another.trim_end())];
    assert!(printed(run(&["token", "get", &id], &caller, "")).contains("\nstate         active\n"));
}

/// Returns the commands between the markers in the guide.
fn documented() -> &'static str {
    let guide = include_str!("../../docs/operations.md");
    let (_, rest) = guide.split_once("<!-- private:begin -->").unwrap();
    let (commands, _) = rest.split_once("<!-- private:end -->").unwrap();
    commands.trim().trim_start_matches("```sh").trim_end_matches("```")
}

/// Runs a script as the account that runs Postgres, with the Postgres programs that `tokend` finds.
fn script(script: &str, test_dir: &TestDir, variables: &[(&str, &str)]) {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut programs: Vec<_> = installed.map(|version| version.path().join("bin")).collect();
    programs.sort();
    let programs = programs.pop().map(|path| path.display().to_string()).unwrap_or_default();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    let message = test_dir.path().join("said");
    // A file, because a server that inherited a pipe would keep it open.
    let output = || fs::File::create(&message).unwrap();
    command.args(["-eu", "-c", script]).env("PATH", path).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(output()).stderr(output()).current_dir(test_dir.path().join("dumps"));
    assert!(command.status().unwrap().success(), "{}", fs::read_to_string(&message).unwrap());
}

#[test]
fn a_private_postgres_is_backed_up_and_restored_as_documented() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let kept = rpc::create(&address, &root, "ada").unwrap();
    let dumps = test_dir.path().join("dumps");
    fs::create_dir(&dumps).unwrap();
    fs::set_permissions(&dumps, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let data = test_dir.data_dir();
    let dump = "pg_dump --format=custom --no-unlogged-table-data --file=tokend.dump -h \"$DATA_DIR/postgres-socket\" \
                -U tokend postgres";
    assert!(include_str!("../../docs/operations.md").contains(dump));
    script(dump, &test_dir, &[("DATA_DIR", data.to_str().unwrap())]);
    let later = rpc::create(&address, &root, "grace").unwrap();
    assert!(server.stop().success());

    let copy = test_dir.path().join("copy");
    assert!(Command::new("cp").arg("-a").args([&data, &copy]).status().unwrap().success());
    let serve = |directory: &Path| {
        test_dir.start(&["serve", "--listen", "127.0.0.1:0", "--data-dir", directory.to_str().unwrap()], &[])
    };
    let mut copied = serve(&copy);
    let address = copied.ready();
    for secret in [&kept.secret, &later.secret] {
        assert_eq!(rpc::verdict(&address, &root, secret), Verdict::Valid);
    }
    assert!(copied.stop().success());

    let new = test_dir.path().join("new");
    let mut empty = serve(&new);
    empty.ready();
    assert!(empty.stop().success());
    script(documented(), &test_dir, &[("NEW", new.to_str().unwrap())]);
    let mut restored = serve(&new);
    let address = restored.ready();
    assert_eq!(rpc::verdict(&address, &root, &kept.secret), Verdict::Valid, "by another keyring");
    assert_eq!(rpc::verdict(&address, &root, &later.secret), Verdict::NotFound);
    assert!(restored.stop().success());
}
