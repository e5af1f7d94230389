//! Refused configurations: with status 1, a message with advice, and no secret in it.

use super::databases::Database;
use super::program::{TestDir, printed, run};

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// Runs `tokend serve` with further arguments, which must be refused, and returns the error message.
fn refusal(test_dir: &TestDir, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut server = test_dir.start(&[&SERVE, arguments].concat(), variables);
    let status = server.end();
    assert_eq!(status.code(), Some(1), "{}", server.stderr());
    assert_eq!(server.stdout(), "");
    assert!(!test_dir.data_dir().exists());
    server.stderr()
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let output =
        refusal(&TestDir::new(), &["--database-url", "postgres://tokend:canary@localhost/tokend"], &[]);

    assert!(output.contains("--database-url must not hold a password"), "{output}");
    assert!(output.contains("DATABASE_URL"), "{output}");
    assert!(!output.contains("canary"), "{output}");
}

#[test]
fn a_database_without_a_keyring_is_refused_and_keygen_named() {
    let output = refusal(&TestDir::new(), &[], &[("DATABASE_URL", "postgres://tokend@localhost/tokend")]);

    assert!(output.contains("a database needs a keyring") && output.contains("tokend keygen"), "{output}");
}

#[test]
fn a_keyring_that_others_can_read_is_refused() {
    let test_dir = TestDir::new();
    let key = printed(run(&["keygen"], &[], ""));
    let keyring = test_dir.file("keyring", &key, 0o644);

    let output =
        refusal(&test_dir, &["--keyring", &keyring, "--database-url", "postgres://tokend@localhost/x"], &[]);

    assert!(output.contains("can be read by others (mode 644)"), "{output}");
    assert!(output.contains(&format!("chmod 600 {keyring}")), "{output}");
    assert!(!output.contains(key.trim_end()), "{output}");
}

#[test]
fn a_broken_keyring_is_refused_by_its_line_and_not_repeated() {
    let test_dir = TestDir::new();
    let keyring = test_dir.file("keyring", "# ours\ncanary\n", 0o600);

    let output =
        refusal(&test_dir, &["--keyring", &keyring, "--database-url", "postgres://tokend@localhost/x"], &[]);

    assert!(output.contains("line 2"), "{output}");
    assert!(!output.contains("canary"), "{output}");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_by_name() {
    let test_dir = TestDir::new();
    let config = test_dir.file("tokend.toml", "log-level = \"info\"\nlisten-on = \"127.0.0.1:1\"\n", 0o644);

    let output = refusal(&test_dir, &["--config", &config], &[]);

    assert!(output.contains("tokend.toml:2") && output.contains("listen-on"), "{output}");
}

#[test]
fn plaintext_beyond_loopback_is_refused_unless_allowed() {
    let test_dir = TestDir::new();
    let mut server = test_dir.start(&["serve", "--listen", "0.0.0.0:0"], &[("HOME", "/nowhere")]);

    let status = server.end();

    assert_eq!(status.code(), Some(1));
    let output = server.stderr();
    assert!(output.contains("refusing to serve plaintext on 0.0.0.0"), "{output}");
    assert!(output.contains("--insecure-plaintext"), "{output}");
}

#[test]
fn another_prefix_than_the_first_migration_recorded_is_refused() {
    let test_dir = TestDir::new();
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys)];
    printed(run(&["migrate"], &shared, ""));

    let output = refusal(&test_dir, &["--secret-prefix", "acme"], &shared);

    assert!(output.contains("this database's secrets begin with 'tokd', not 'acme'"), "{output}");
}

#[test]
fn a_postgres_that_can_lose_commits_is_refused() {
    let test_dir = TestDir::new();
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));

    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*keys), ("TOKEND_ALLOW_FSYNC_OFF", "false")];
    let output = refusal(&test_dir, &[], &shared);

    assert!(output.contains("fsync=on"), "{output}");
}

#[test]
fn a_missing_database_or_role_is_an_error_at_once() {
    let test_dir = TestDir::new();
    let keys = printed(run(&["keygen"], &[], ""));
    let url = Database::new().url();
    let (before, after) = url.split_once("@localhost/process_").unwrap();
    let missing = [format!("{before}@localhost/nowhere_{after}"), url.replace("//", "//nobody_")];

    for url in missing {
        let output = refusal(&test_dir, &[], &[("DATABASE_URL", &url), ("TOKEND_KEYS", &keys)]);

        assert!(output.contains("does not exist"), "{output}");
        assert!(output.contains("correct the database URL"), "{output}");
    }
}

#[test]
fn a_mistyped_parameter_of_the_database_url_is_refused() {
    let output =
        refusal(&TestDir::new(), &[], &[("DATABASE_URL", "postgres://t@localhost/t?sslmod=verify-full")]);

    assert!(output.contains("unknown parameter") && output.contains("sslmode"), "{output}");
}

#[test]
fn a_schema_without_its_migrations_is_refused_with_no_migrate() {
    let test_dir = TestDir::new();
    let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));

    let output = refusal(&test_dir, &["--no-migrate"], &[("DATABASE_URL", &url), ("TOKEND_KEYS", &keys)]);

    assert!(output.contains("the database lacks migrations; run `tokend migrate`"), "{output}");
}

#[test]
fn an_address_in_use_is_refused_before_a_database_is_created() {
    let test_dir = TestDir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data_dir = test_dir.data_dir();
    let mut server =
        test_dir.start(&["serve", "--listen", &address, "--data-dir", data_dir.to_str().unwrap()], &[]);

    let status = server.end();

    assert_eq!(status.code(), Some(1));
    assert!(server.stderr().contains(&format!("{address} is in use")), "{}", server.stderr());
    assert!(!data_dir.exists());
}
