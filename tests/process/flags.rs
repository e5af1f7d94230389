//! Every command and every flag, as clap defines them: destructive commands have a dry run, and a
//! flag that several commands share has an effect on each.

use std::collections::BTreeMap;
use std::fs;

use clap::{Command, CommandFactory as _};
use secrecy::ExposeSecret as _;
use tokend::cli::CommandLine;
use tokend::clock;
use tokend::secret::{Prefix, Secret, TokenId};

use super::program::{TestDir, printed, run, text};

/// The last words of commands that are destructive.
const DESTROYING: [&str; 8] =
    ["delete", "delete-old", "drop", "enforce", "prune", "purge", "remove", "revoke"];

/// Flags of several commands, each with an unusable value, the other arguments without which the
/// flag has no effect, and a part of the expected error message.
const SHARED: [(&str, &str, &[&str], &str); 8] = [
    ("address", "nonsense", &[], "--address"),
    ("ca", "/nowhere/ca.pem", &["--address", "https://127.0.0.1:1"], "/nowhere/ca.pem"),
    ("config", "/nowhere/tokend.toml", &[], "/nowhere/tokend.toml"),
    ("database-url", "mysql://127.0.0.1:1/x", &[], "--database-url"),
    ("database-password-file", "/nowhere/password", &[], "/nowhere/password"),
    ("direct-database-url", "mysql://127.0.0.1:1/x", &[], "--direct-database-url"),
    ("keyring", "/nowhere/keyring", &[], "/nowhere/keyring"),
    ("secret-prefix", "NO", &[], "prefix"),
];

/// Returns every command without subcommands, by its full name.
fn leaves() -> BTreeMap<String, Command> {
    fn walk(command: &Command, words: &str, found: &mut BTreeMap<String, Command>) {
        for inner in command.get_subcommands() {
            let words = format!("{words} {}", inner.get_name()).trim().to_owned();
            if inner.has_subcommands() {
                walk(inner, &words, found);
            } else {
                found.insert(words, inner.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&CommandLine::command(), "", &mut found);
    found
}

fn has(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(flag))
}

/// Returns the required arguments of a command.
fn demanded(words: &str) -> &'static [&'static str] {
    match words {
        "audit purge" => &["--older-than-days", "30"],
        "token create" => &["--user", "u", "--name", "n", "--ttl", "1d"],
        "token update" => &["0352xpGyNe8yJOd6fw5Q3A", "--name", "n"],
        "token get" | "token limits" | "token rotate" | "token revoke" | "token disable" | "token enable" => {
            &["0352xpGyNe8yJOd6fw5Q3A"]
        }
        "user revoke" | "user disable" | "user enable" | "user portal" | "user revoke-portal" => &["u"],
        "plan get" | "plan delete" => &["free"],
        "plan set" => &["free", "--limit", "name=reads,rate=1/1s"],
        "plan add-credits" => &["free", "--limit", "money", "--amount", "1"],
        "rules" => &["gitleaks"],
        _ => &[],
    }
}

#[test]
fn every_destructive_command_has_a_dry_run() {
    let mut destroying = 0;
    for (words, command) in leaves() {
        let destroys = DESTROYING.contains(&words.rsplit(' ').next().unwrap());
        assert!(!destroys || has(&command, "dry-run"), "{words} has no --dry-run");
        destroying += usize::from(destroys);
    }
    assert!(destroying >= 5, "{destroying}");
}

#[test]
fn a_shared_flag_works_with_each_of_its_commands() {
    let mut randomness = clock::randomness();
    let id = TokenId::generate(clock::unix_millis(), &mut randomness).unwrap();
    let secret = Secret::generate(id, &mut randomness).unwrap().render(&Prefix::default());
    let secret = secret.expose_secret().to_owned();
    let mut tried = 0;
    for (words, command) in leaves() {
        for (flag, value, beside, message) in SHARED {
            if !has(&command, flag) {
                continue;
            }
            let flag = format!("--{flag}");
            let arguments: Vec<&str> = words
                .split(' ')
                .chain(demanded(&words).iter().copied())
                .chain([&*flag, value])
                .chain(beside.iter().copied())
                .collect();
            let mut variables = vec![
                ("TOKEND_SECRET", &*secret),
                ("TOKEND_KEYS", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ];
            if flag == "--keyring" {
                variables.pop();
            }
            if flag != "--database-url" {
                variables.push(("DATABASE_URL", "postgres://x@127.0.0.1:1/x"));
            }

            let output = run(&arguments, &variables, "");

            let (status, stderr) = (output.status.code(), text(&output.stderr));
            assert_eq!(status, Some(1), "{arguments:?}: {stderr}");
            assert!(stderr.contains(message), "{arguments:?} does not look at it: {stderr}");
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

/// Returns what stands in a help text as `[name: …]`.
fn noted<'a>(help: &'a str, name: &str) -> Option<&'a str> {
    help.split_once(&format!("[{name}: "))?.1.split_once(']').map(|(noted, _)| noted)
}

#[test]
fn the_documented_settings_match_the_flags_of_serve() {
    const GUIDE: &str = include_str!("../../docs/configuration.md");
    let (table, _) = GUIDE.split_once("\n## The database URL").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `--")).collect();
    let described: usize =
        rows.iter().map(|row| row.split(" | ").next().unwrap().matches("`--").count()).sum();
    let serve = &leaves()["serve"];
    let mut flags = 0;
    for argument in serve.get_arguments().filter(|argument| !argument.is_global_set()) {
        let Some(long) = argument.get_long().filter(|long| *long != "help") else { continue };
        let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
        let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let flag = value.map_or(format!("`--{long}`"), |value| format!("`--{long} {}`", value[0]));
        let row = rows.iter().find(|row| row.contains(&flag)).unwrap_or_else(|| panic!("no row has {flag}"));
        let variables = noted(&help, "env").unwrap_or_else(|| panic!("the help of {flag} names no variable"));
        for variable in variables.split(", then ") {
            assert!(row.contains(&format!("`{variable}`")), "{variable} is not in {row}");
        }
        let default = noted(&help, "default").filter(|default| !default.contains(' '));
        assert!(default.is_none_or(|default| row.contains(default)), "{default:?} is not in {row}");
        flags += 1;
    }
    assert!(flags > 40, "{flags}");
    assert_eq!(flags, described, "the table describes flags that serve does not have");
}

#[test]
fn address_insecure_is_refused_for_an_https_address() {
    let address = ["--address", "https://127.0.0.1:1", "--address-insecure"];
    let mut tried = 0;
    for (words, command) in leaves() {
        if has(&command, "address-insecure") {
            let words = words.split(' ').chain(demanded(&words).iter().copied());
            let arguments: Vec<&str> = words.chain(address).collect();
            let output = run(&arguments, &[], "");
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
            assert!(stderr.contains("--address-insecure has no effect"), "{arguments:?}: {stderr}");
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn a_dry_run_changes_nothing_and_prints_what_would_change() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let tokend =
        |arguments: &[&str]| run(arguments, &[("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)], "");
    let made = |user: &str, name: &str| {
        let line = ["token", "create", "--user", user, "--name", name, "--no-expiration"];
        printed(tokend(&line))[5..27].to_owned()
    };
    let first = made("ada", "first");
    let rotate = ["token", "rotate", &first, "--grace-period", "1h"];
    let second = printed(tokend(&rotate))[5..27].to_owned();
    let third = printed(tokend(&["token", "rotate", &second]))[5..27].to_owned();
    let other = made("ada", "other");
    printed(tokend(&["token", "revoke", &other]));
    let elsewhere =
        ["token", "create", "--organization", "acme", "--user", "ada", "--name", "n", "--ttl", "1d"];
    printed(tokend(&elsewhere));
    printed(tokend(&["policy", "set", "--expiration-required"]));
    let kept = test_dir.data_dir().join("postgres-13");
    fs::create_dir(&kept).unwrap();
    let state = || {
        let listed = ["token", "list", "--json"];
        let events = ["audit", "list", "--json"];
        // Last uses are recorded independently.
        let listed = printed(tokend(&listed));
        let listed: Vec<_> =
            listed.lines().map(|line| line.split("\"lastUseTime\"").next().unwrap().to_owned()).collect();
        (listed, printed(tokend(&events)))
    };
    let before = state();

    let line = tokend(&["token", "revoke", &first, "--dry-run", "--json"]);
    let alone = tokend(&["token", "revoke", &first, "--only-this", "--dry-run"]);
    let user = tokend(&["user", "revoke", "ada", "--dry-run"]);
    let enforced = tokend(&["policy", "enforce", "--dry-run"]);
    let data_dir = test_dir.data_dir();
    let deleted =
        run(&["data", "delete-old", "--data-dir", data_dir.to_str().unwrap(), "--dry-run"], &[], "");

    assert!(text(&line.stderr).contains("3 tokens would be revoked"), "{}", text(&line.stderr));
    let line = printed(line);
    assert!([&first, &second, &third].iter().all(|id| line.contains(&***id)), "{line}");
    assert!(text(&alone.stderr).contains("1 tokens would be revoked"), "{}", text(&alone.stderr));
    assert!(text(&user.stderr).contains("3 tokens would be revoked"), "{}", text(&user.stderr));
    assert!(!printed(user).contains(&other));
    assert!(
        text(&enforced.stderr).starts_with("1 tokens of \"default\" break the policy"),
        "{}",
        text(&enforced.stderr)
    );
    assert!(printed(deleted).contains("postgres-13") && kept.exists());
    assert_eq!(state(), before);

    let done = printed(tokend(&["user", "revoke", "ada"]));
    assert!(done.contains("revoked  3"), "{done}");
}
