//! The output of commands: for people, as JSON for programs, and for a reader that closes the pipe.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;

use super::databases::Database;
use super::program::{Running, TestDir, printed, run, run_into, text};
use super::{commands, rpc};

/// A server with tokens in two organizations and a policy, and a separate database.
struct Scene {
    test_dir: TestDir,
    _server: Running,
    address: String,
    root: String,
    url: String,
    keys: String,
}

impl Scene {
    fn new() -> Self {
        let test_dir = TestDir::new();
        let mut server = test_dir.serve();
        let (address, root) = (server.ready(), test_dir.root_secret());
        let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
        printed(run(&["migrate"], &[("DATABASE_URL", &url), ("TOKEND_KEYS", &keys)], ""));
        let scene = Self { test_dir, _server: server, address, root, url, keys };
        let elsewhere = "token create --organization acme --user ada --name n --label team=core --cidr 10.0.0.0/8 \
                         --scope a:b --no-expiration";
        printed(scene.run(elsewhere, ""));
        // The policy will not allow this one.
        printed(scene.run("token create --user ada --name n --scope a:b --ttl 1h", ""));
        printed(scene.run("policy set --longest-lifetime 90d --allowed-scope orders:*", ""));
        printed(
            scene.run("plan set kept --limit name=credits,per=user,initial=10,refill=5/month,mode=add", ""),
        );
        scene
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("TOKEND_ADDRESS", &self.address),
            ("TOKEND_SECRET", &self.root),
            ("DATABASE_URL", &self.url),
            ("TOKEND_KEYS", &self.keys),
        ]
    }

    fn run(&self, line: &str, input: &str) -> Output {
        run(&line.split_ascii_whitespace().collect::<Vec<_>>(), &self.variables(), input)
    }

    fn fresh_plan(&self) -> String {
        let name = format!("p{}", uuid::Uuid::new_v4().simple());
        printed(self.run(&format!("plan set {name} --limit name=reads,rate=100/1m"), ""));
        name
    }

    fn fresh(&self) -> String {
        rpc::create(&self.address, &self.root, "ada").unwrap().token.unwrap().id
    }

    /// Returns the full arguments of a command that prints something and ends.
    fn line(&self, command: &str) -> String {
        let more = match command {
            "token create" => "--user ada --name n --ttl 1d --scope orders:read".to_owned(),
            "token rotate" => format!("{} --grace-period 1h", self.fresh()),
            "token get" | "token limits" | "token disable" | "token enable" | "token revoke" => self.fresh(),
            "token update" => format!("{} --name m", self.fresh()),
            "policy dry-run" => "--longest-lifetime 1s".to_owned(),
            "policy set" => "--longest-lifetime 90d --allowed-scope orders:*".to_owned(),
            "user revoke" | "user disable" | "user enable" | "user portal" | "user revoke-portal" => {
                "nobody".to_owned()
            }
            "plan set" => "free --limit name=reads,per=token,rate=100/1m".to_owned(),
            "plan get" => "kept".to_owned(),
            "plan delete" => self.fresh_plan(),
            "plan add-credits" => {
                let paid = "plan set paid --limit name=money,per=organization,initial=1";
                printed(self.run(paid, ""));
                "paid --limit money --amount 1".to_owned()
            }
            "audit purge" => "--older-than-days 30 --dry-run".to_owned(),
            "migrate" => "--plan".to_owned(),
            "rules" => "regex".to_owned(),
            "completions" => "bash".to_owned(),
            _ => String::new(),
        };
        format!("{command} {more}")
    }
}

/// The commands that run until they are stopped, wait for a person, print nothing, or manage a directory.
fn endless_or_silent() -> BTreeSet<String> {
    ["serve", "watch", "healthcheck", "data upgrade", "data delete-old", "man", "login", "logout"]
        .map(str::to_owned)
        .into()
}

#[test]
fn a_closed_pipe_is_no_error_unless_a_secret_or_work_is_lost() {
    let scene = Scene::new();
    for command in commands::all().difference(&endless_or_silent()) {
        let line = scene.line(command);
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let closed = || std::io::pipe().unwrap().1;
        let output = run_into(&words, &scene.variables(), closed());
        let expected = match &**command {
            // Enforcement reports each page as it continues.
            "keygen" | "bootstrap" | "token create" | "token rotate" | "policy enforce" => 1,
            // The input is not a secret.
            "token verify" | "secret check" => 3,
            _ => 0,
        };
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{line}: {message}");
        assert_eq!(message.contains("error:"), expected == 1, "{line}: {message}");
    }
    let words = ["token", "list", "--json"];
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(
        run_into(&words, &scene.variables(), full).status.code(),
        Some(1),
        "a full disk is no such reader"
    );
}

/// Returns the part of a JSON value that does not follow protobuf's JSON mapping.
fn broken_rule(name: &str, value: &Value) -> Option<String> {
    let by_name = match name {
        "kind" | "state" | "verdict" => {
            value.as_str().is_some_and(|word| word.contains('_') && word == word.to_uppercase())
        }
        // These have at most 32 bits.
        "mostActiveTokensPerUser" | "position" => true,
        _ => !value.is_number(),
    };
    let camel =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    let is_set = match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty() || name == "policy",
        Value::Bool(set) => *set,
        Value::Number(_) => true,
    };
    if !(by_name && camel && is_set) {
        return Some(format!("{name}: {value}"));
    }
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| broken_rule(name, value)),
        Value::Array(items) => items.iter().find_map(|item| broken_rule("item", item)),
        _ => None,
    }
}

#[test]
fn all_json_output_follows_one_mapping() {
    let scene = Scene::new();
    for command in commands::with("json").difference(&endless_or_silent()) {
        let line = scene.line(command) + " --json";
        let output = scene.run(&line, &scene.root);
        let (shown, message) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{line}: {message}");
        let lines: Vec<_> = shown.lines().collect();
        assert!(!lines.is_empty() || command.starts_with("policy"), "{line}");
        for line in lines {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(broken_rule("line", &value), None, "{command}: {line}");
        }
    }
}

#[test]
fn an_incomplete_list_says_so() {
    let scene = Scene::new();
    scene.fresh_plan();
    // Three commands have a flag of this name for the limits of plans.
    let others = ["plan set", "plan add-credits", "token verify"];
    for command in commands::with("limit").iter().filter(|command| !others.contains(&&***command)) {
        for json in ["", " --json"] {
            let limited = scene.run(&format!("{command} --limit 1{json}"), "");
            assert!(text(&limited.stderr).contains("more than these 1: raise --limit"), "{command}{json}");
            let whole = scene.run(&format!("{command}{json}"), "");
            assert_eq!(text(&whole.stderr), "", "{command}{json}");
        }
    }
}

#[test]
fn lists_of_a_root_caller_show_the_organization() {
    let scene = Scene::new();
    for command in ["token list", "audit list"] {
        let all = printed(scene.run(command, ""));
        assert!(all.lines().next().unwrap().contains("ORGANIZATION"), "{all}");
        assert!(all.contains("  acme  ") && all.contains("  default  "), "{all}");
        let one = printed(scene.run(&format!("{command} --organization acme"), ""));
        assert!(
            !one.contains("ORGANIZATION") && !one.contains("default") && one.lines().count() > 1,
            "{one}"
        );
    }
    let wide = printed(scene.run("token list --organization acme --wide", ""));
    assert!(wide.lines().next().unwrap().ends_with("LAST USE  SCOPES  NETWORKS    LABELS"), "{wide}");
    assert!(wide.contains("never     a:b     10.0.0.0/8  team=core\n"), "{wide}");
    let rest = "--longest-lifetime 1d --organization acme";
    let tried = scene.run(&format!("policy dry-run {rest}"), "");
    assert!(text(&tried.stderr).starts_with("1 tokens of \"acme\""), "{}", text(&tried.stderr));

    let nobody = scene.run("user revoke eve", "");
    let warned = text(&nobody.stderr);
    assert!(warned.contains("nothing was revoked") && warned.contains("\"default\""), "{warned}");
    assert_eq!(printed(nobody), "revoked  0 in the organization \"default\"\n");
    let one = scene.run("user revoke ada --organization acme", "");
    assert_eq!(text(&one.stderr), "");
    assert!(printed(one).starts_with("revoked  1 in the organization \"acme\"\nrefused everywhere from "));
    let left = printed(scene.run("token list --user ada --state active", ""));
    assert!(left.contains("default") && !left.contains("acme"), "{left}");
}

#[test]
fn the_audit_log_is_listed_by_time_and_actor() {
    let scene = Scene::new();
    let lines = |more: &str| printed(scene.run(&format!("audit list --json {more}"), "")).lines().count();
    let (all, own) = (lines(""), lines(&format!("--by {}", &scene.root[5..27])));
    assert_eq!((lines("--by bootstrap"), lines("--by tokend"), own), (1, 0, all - 1));
    assert_eq!(
        (lines("--since 1h"), lines("--until 1h"), lines("--until 2999-01-01T00:00:00Z")),
        (all, 0, all)
    );
    printed(scene.run("token create --service --user billing --name n --scope orders:read --ttl 1d", ""));
    assert_eq!((lines("--owner-kind service"), lines("--owner-kind user")), (1, all));
    let service = printed(scene.run("audit list --owner-kind service", ""));
    assert!(service.contains("billing (service)"), "{service}");
    let limited = scene.run("audit list --since 1h --limit 1", "");
    assert!(text(&limited.stderr).contains("more than these 1"), "{}", text(&limited.stderr));
}

#[test]
fn durations_are_parsed_and_printed_alike_and_never_in_months() {
    let scene = Scene::new();
    let shown = printed(scene.run("policy get", ""));
    assert!(
        shown.contains("longest lifetime  90d\n") && shown.contains("longest grace     30d\n"),
        "{shown}"
    );
    let whole = printed(scene.run("token list", ""));
    for line in [
        "token list --created-after 1h",
        "token list --expires-before 3650d",
        "token list --unused-since 90d",
    ] {
        let found = printed(scene.run(line, ""));
        assert_eq!(found == whole, line.contains("created-after"), "{line}: {found}");
    }
    for line in [
        "token create --user u --name n --ttl 1M",
        "token rotate 0000000000000000000000 --grace-period 1month",
        "token update 0000000000000000000000 --ttl 1y",
        "token list --unused-since 1M",
        "token list --expires-before 2years",
        "policy set --longest-lifetime 1M",
        "serve --token-retention 13M",
        "serve --expiry-warnings 7d,1month",
    ] {
        let refused = scene.run(line, "");
        let message = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line}: {message}");
        assert!(message.contains("not equally long: write days"), "{line}: {message}");
    }
    for (name, value) in [("TOKEND_DRAIN_TIMEOUT", "1M"), ("TOKEND_TOKEN_RETENTION", "1y")] {
        let mut server = scene.test_dir.start(&["serve", "--listen", "127.0.0.1:0"], &[(name, value)]);
        assert_eq!(server.end().code(), Some(1));
        assert!(server.stderr().contains("not equally long"), "{}", server.stderr());
    }
}

#[test]
fn a_repeated_single_value_is_refused() {
    let scene = Scene::new();
    let before = printed(scene.run("token list --json", ""));
    for line in [
        "token create --user u --name n --ttl 1d --label a=1 --label a=2",
        "token create --user u --name n --ttl 1d --ttl 2d",
        "token create --user u --user v --name n --ttl 1d",
        "token update 0000000000000000000000 --label a=1 --label a=1",
        "token list --limit 1 --limit 2",
    ] {
        let refused = scene.run(line, "");
        assert_eq!(refused.status.code(), Some(2), "{line}: {}", text(&refused.stderr));
    }
    assert_eq!(printed(scene.run("token list --json", "")), before);
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let test_dir = TestDir::new();
    let pages = test_dir.path().join("man/man1");
    printed(run(&["man", pages.to_str().unwrap()], &[], ""));
    let scripts: Vec<_> =
        ["bash", "zsh", "fish"].iter().map(|shell| printed(run(&["completions", shell], &[], ""))).collect();
    for command in commands::all() {
        let page =
            std::fs::read_to_string(pages.join(format!("tokend-{}.1", command.replace(' ', "-")))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
        let last = command.rsplit(' ').next().unwrap();
        assert!(scripts.iter().all(|script| script.contains(last)), "{command}");
    }
    let script = test_dir.file("tokend.bash", &scripts[0], 0o600);
    assert!(std::process::Command::new("bash").args(["-n", &script]).status().unwrap().success());
}
