//! What an operator replaces while tokend serves: the keyring, and the database's password.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use tokend::api::proto::Verdict;

use super::cluster::cluster;
use super::databases::Database;
use super::program::{Running, TestDir, eventually, printed, run};
use super::rpc;

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];

/// Requests the readiness from the HTTP listener, and returns the whole response.
fn readiness(server: &mut Running) -> String {
    let rest = server.await_log("HTTP on ");
    let address = rest.lines().next().unwrap().trim().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: tokend\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_replaced_keyring_is_reloaded_and_a_dropped_key_is_reported() {
    let test_dir = TestDir::new();
    let url = Database::new().url();
    let [first, second] = [(); 2].map(|()| printed(run(&["keygen"], &[], "")));
    let keyring = test_dir.file("keyring", &first, 0o600);
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYRING", &*keyring)];
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();
    let mut server = test_dir.start(&SERVE, &shared);
    let address = server.ready();
    let made = rpc::create(&address, &root, "ada").unwrap();

    // Half of a key: the file is rejected.
    test_dir.file("keyring", &second[..20], 0o600);
    server.await_log("the keyring cannot be reloaded");
    assert_eq!(rpc::verdict(&address, &root, &made.secret), Verdict::Valid);

    test_dir.file("keyring", &format!("{second}{first}"), 0o600);
    server.await_log("the keyring was reloaded");
    let later = rpc::create(&address, &root, "ada").unwrap();
    let counted = || printed(run(&["key", "status", "--json"], &shared, ""));
    // Used tokens are rewritten under the new key; unused ones are not.
    assert_eq!(rpc::verdict(&address, &root, &made.secret), Verdict::Valid);
    assert!(eventually(|| counted().contains("\"position\":1,\"tokens\":\"3\"")), "{}", counted());

    // The new key only, then another one only: every token depends on the removed key.
    test_dir.file("keyring", &first, 0o600);
    let warned = server.await_log("the new keyring drops a key that tokens still use");
    assert!(warned.contains("tokens=3"), "{warned}");
    for secret in [&made.secret, &later.secret, &made.secret] {
        assert_eq!(rpc::verdict(&address, &root, secret), Verdict::Valid);
    }

    server.signal(Signal::HUP);
    server.await_log("asked to reload the keyring: it has not changed");
    assert_eq!(server.stop().code(), Some(0));
    for key in [first, second] {
        assert!(!server.stderr().contains(key.trim_end()));
    }
}

#[test]
fn a_rotated_database_password_is_reloaded_and_reported_while_it_is_wrong() {
    let test_dir = TestDir::new();
    let database = Database::new();
    let hba = cluster().socket_dir().with_file_name("postgres").join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all rotated scram-sha-256\n{rules}")).unwrap();
    database.execute("SELECT pg_reload_conf()");
    database.execute("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'canary-one'");
    let keys = printed(run(&["keygen"], &[], ""));
    let url = database.url().replace("//tokend@", "//rotated@");
    let file = test_dir.file("password", "wrong\n", 0o600);
    let shared =
        [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys), ("TOKEND_DATABASE_PASSWORD_FILE", &*file)];
    let mut server = test_dir.start(&SERVE, &shared);

    server.await_log("waiting for the database: the database does not accept the password or the role");
    let early = readiness(&mut server);
    assert!(early.starts_with("HTTP/1.1 503") && early.contains("password"), "{early}");
    test_dir.file("password", "canary-one\n", 0o600);
    let address = server.ready();
    assert!(readiness(&mut server).starts_with("HTTP/1.1 200"));
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();

    // Existing connections stay usable, and the cache is fresh.
    database.execute("ALTER ROLE rotated PASSWORD 'canary-two'");
    server.await_log(
        "no new connection to the database can be opened: the database does not accept the password",
    );
    let standing = readiness(&mut server);
    assert!(standing.starts_with("HTTP/1.1 200") && standing.contains("password"), "{standing}");
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'");
    server.await_log("not serving until this ends: the database does not accept the password");
    let between = readiness(&mut server);
    assert!(between.starts_with("HTTP/1.1 503") && between.contains("password"), "{between}");

    test_dir.file("password", "canary-two\n", 0o600);
    server.await_log("the database password was reloaded");
    assert!(eventually(|| readiness(&mut server).starts_with("HTTP/1.1 200")), "{}", server.stderr());
    // For every use of a connection: reading, writing, revoking.
    let made = rpc::create(&address, &root, "ada").unwrap();
    assert_eq!(rpc::verdict(&address, &root, &made.secret), Verdict::Valid);
    rpc::revoke(&address, &root, &made.token.unwrap().id).unwrap();
    server.await_log("the database accepts new connections again");
    assert!(readiness(&mut server).ends_with("\r\n\r\nok\n"));
    assert!(!server.stderr().contains("canary"), "{}", server.stderr());
}

#[test]
fn a_password_file_that_others_can_read_is_refused() {
    let test_dir = TestDir::new();
    let file = test_dir.file("password", "canary\n", 0o644);
    let url = Database::new().url();
    let refused = run(&["migrate"], &[("DATABASE_URL", &url), ("TOKEND_DATABASE_PASSWORD_FILE", &file)], "");

    let output = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(output.contains("chmod 600") && !output.contains("canary"), "{output}");
}
