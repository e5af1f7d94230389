//! Whatever happens to a secret, it appears only where it is meant to be shown or kept: searched
//! for in all output at the most detailed log level, in Postgres's log, in every row and every data
//! file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tokend::api::proto::Verdict;

use super::cluster::cluster;
use super::databases::Database;
use super::program::{TestDir, printed, run};
use super::rpc;

const EVERYTHING: &str = "trace,h2=trace,h2::codec=trace,h2::hpack=trace,h2::proto=trace,[server_handshake]=trace,\
    hyper=trace,hyper::proto=trace,hyper_util::rt=trace,tonic=trace,sqlx=trace,tower=trace";

#[test]
fn a_private_postgres_keeps_no_secret_and_a_text_log_shows_none() {
    let (test_dir, needles) = (TestDir::new(), TestDir::new());
    let data_dir = test_dir.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let mut server = test_dir.start(&[&serve[..], &["--log-level", EVERYTHING]].concat(), &[]);
    let address = server.ready();
    let root = test_dir.root_secret();
    let key = std::fs::read_to_string(data_dir.join("keyring")).unwrap();

    let mut secrets = live_through_everything(&address, &root);
    assert!(server.stop().success());

    secrets.push(root);
    assert!(server.stderr().contains("TRACE"));
    assert!(["h2::", "hyper::"].iter().all(|wire| !server.stderr().contains(wire)));
    assert_eq!(files_with(&needles, &secrets, test_dir.path()), names(&["data/root-secret"]));
    assert_eq!(files_with(&needles, &forms_of_key(&key), test_dir.path()), names(&["data/keyring"]));
}

#[test]
fn a_shared_postgres_holds_no_secret_and_a_json_log_shows_none() {
    let (test_dir, needles) = (TestDir::new(), TestDir::new());
    let database = Database::new();
    let password = "canary-password";
    let url = database.url().replace("tokend@", &format!("tokend:{password}@"));
    let key = printed(run(&["keygen"], &[], ""));
    let shared = [("DATABASE_URL", &*url), ("TOKEND_KEYS", &*key)];
    let verbose = ["--log-level", EVERYTHING, "--log-format", "json"];
    let mut bootstrap = test_dir.start(&[&["bootstrap"], &verbose[..]].concat(), &shared);
    assert!(bootstrap.end().success());
    let root = bootstrap.stdout().trim_end().to_owned();
    let mut server = test_dir.start(&[&["serve", "--listen", "127.0.0.1:0"], &verbose[..]].concat(), &shared);
    let address = server.ready();

    let mut secrets = live_through_everything(&address, &root);
    let shown = bootstrap.stdout_name();
    assert!(server.stop().success());
    test_dir.file("rows", &database.rows(), 0o600);
    std::fs::copy(cluster().log_file(), test_dir.path().join("postgres.log")).unwrap();

    secrets.push(root);
    assert!(server.stderr().contains(r#""level":"TRACE""#));
    assert!(database.rows().contains("x0100004c00000201"));
    assert_eq!(files_with(&needles, &secrets, test_dir.path()), names(&[&shown]));
    let hidden = [forms_of_key(&key), vec![password.to_owned()]].concat();
    assert_eq!(files_with(&needles, &hidden, test_dir.path()), names(&[]));
}

/// Makes every call succeed and be refused, over gRPC and by the command line, and returns the
/// secrets that were used. The commands show no secret except the one that they create.
fn live_through_everything(address: &str, root: &str) -> Vec<String> {
    let created = rpc::create(address, root, "ada").unwrap();
    let id = created.token.unwrap().id;
    let caller = [("TOKEND_ADDRESS", address), ("TOKEND_SECRET", root)];
    let create = ["token", "create", "--user", "bob", "--name", "n", "--no-expiration"];
    let by_command = printed(run(&create, &caller, "")).trim_end().to_owned();
    let mistyped = mistyped(&created.secret);
    let guessed = guessed(&created.secret);
    let secrets = vec![created.secret, by_command, mistyped, guessed];
    let [good, other, mistyped, guessed] = &secrets[..] else { unreachable!() };

    assert_eq!(rpc::verdict(address, root, good), Verdict::Valid);
    assert_eq!(rpc::verdict(address, root, other), Verdict::MissingScope);
    assert_eq!(rpc::verdict(address, root, mistyped), Verdict::Malformed);
    assert_eq!(rpc::verdict(address, root, guessed), Verdict::NotFound);
    for caller in [good, mistyped, guessed] {
        rpc::create(address, caller, "eve").unwrap_err();
        rpc::list(address, caller).unwrap_err();
        rpc::verify(address, caller, other).unwrap_err();
    }
    // A secret in the argument for a name or an id is a common mistake.
    rpc::create(address, root, &format!("{good}\n")).unwrap_err();
    assert!(!run(&["token", "revoke", "nonsense"], &caller, "").status.success());
    let rotated = printed(run(&["token", "rotate", &by_id(other), "--grace-period", "1h"], &caller, ""));
    let rotated = rotated.trim_end().to_owned();
    assert!(run(&["token", "revoke", "--from-stdin"], &caller, guessed).status.code() == Some(1));
    let outputs = [
        run(&["token", "get", &by_id(other)], &caller, ""),
        run(&["token", "update", &by_id(other), "--name", "m"], &caller, ""),
        run(&["token", "revoke", "--from-stdin"], &caller, &rotated),
        run(&["token", "list"], &caller, ""),
        run(&["token", "list", "--json"], &caller, ""),
        run(&["token", "verify"], &caller, other),
        run(&["token", "verify", "--json"], &caller, guessed),
        run(&["token", "revoke", &id], &caller, ""),
        run(&["token", "list"], &[("TOKEND_ADDRESS", address), ("TOKEND_SECRET", good)], ""),
    ];
    assert_eq!(rpc::verdict(address, root, good), Verdict::Revoked);
    for output in outputs {
        let message = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(secrets.iter().chain([&rotated]).all(|secret| !message.contains(core_of(secret))));
    }
    [secrets, vec![rotated]].concat()
}

/// Returns the id of a secret's token.
fn by_id(secret: &str) -> String {
    secret["tokd_".len()..][..22].to_owned()
}

/// Returns a secret with one wrong character, which the checksum reveals.
fn mistyped(secret: &str) -> String {
    let (body, last) = secret.split_at(secret.len() - 1);
    format!("{body}{}", if last == "0" { "1" } else { "0" })
}

/// Returns a secret with the id of a token, other random bits and a right checksum: it belongs to
/// no token.
fn guessed(secret: &str) -> String {
    use secrecy::ExposeSecret as _;
    use tokend::secret::{Prefix, Secret};

    let prefix = Prefix::default();
    let id = Secret::parse(secret, &prefix).unwrap().id();
    let guess = Secret::generate(id, &mut tokend::clock::randomness()).unwrap();
    guess.render(&prefix).expose_secret().to_owned()
}

/// Returns the random part of a secret, which must not appear alone either.
fn core_of(secret: &str) -> &str {
    &secret["tokd_".len() + 22..][..43]
}

/// Returns a key as stored, and its bytes in the forms that a log could have.
fn forms_of_key(line: &str) -> Vec<String> {
    use base64::Engine as _;

    let line = line.trim_end();
    let bytes = base64::engine::general_purpose::STANDARD.decode(line).unwrap();
    let hexadecimal: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<_> = bytes.iter().take(8).map(ToString::to_string).collect();
    vec![line.to_owned(), hexadecimal.concat(), numbers.join(", ")]
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns the files below `directory` that contain one of the needles, as paths relative to it.
fn files_with(test_dir: &TestDir, needles: &[String], directory: &Path) -> BTreeSet<String> {
    let needles: Vec<&str> = needles
        .iter()
        .map(|needle| if needle.starts_with("tokd_") { core_of(needle) } else { needle })
        .collect();
    // In a file: a secret is never a command-line argument, not in tests either.
    let file = test_dir.file("needles", &needles.join("\n"), 0o600);
    let found =
        Command::new("grep").args(["-r", "-l", "-a", "-F", "-f", &file, "."]).current_dir(directory).output();
    let found = found.unwrap();
    assert!(found.stderr.is_empty(), "{}", String::from_utf8_lossy(&found.stderr));
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().map(|path| path.trim_start_matches("./").to_owned()).collect()
}
