//! The life of a token by the operator's commands: their output, and their exit status.

use std::process::Output;

use tokend::api::proto::Verdict;

use super::program::{Running, TestDir, printed, run, text};
use super::rpc;

/// Runs a command with the root token, and this standard input.
fn operate(address: &str, root: &str, arguments: &[&str], input: &str) -> Output {
    run(arguments, &[("TOKEND_ADDRESS", address), ("TOKEND_SECRET", root)], input)
}

/// Starts a server; returns it with its directory, its address and the secret of the root token.
fn started() -> ((Running, TestDir), String, String) {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    ((server, test_dir), address, root)
}

fn json(output: Output) -> serde_json::Value {
    serde_json::from_str(&printed(output)).unwrap()
}

#[test]
fn commands_show_change_rotate_and_revoke_a_token() {
    let (_server, address, root) = started();
    let tokend = |arguments: &[&str]| operate(&address, &root, arguments, "");
    let create =
        ["token", "create", "--user", "ada", "--name", "laptop", "--ttl", "30d", "--cidr", "10.0.0.0/8"];
    let old = printed(tokend(&create)).trim_end().to_owned();
    let id = &old[5..27];

    let shown = json(tokend(&["token", "get", id, "--json"]));
    assert_eq!((&shown["id"], &shown["allowedCidrs"][0]), (&id.into(), &"10.0.0.0/8".into()));
    let changed = printed(tokend(&["token", "update", id, "--name", "desk", "--scope", "a:*", "--no-cidrs"]));
    assert!(
        changed.contains("\nname          desk\n") && changed.contains("\nscopes        a:*\n"),
        "{changed}"
    );
    assert!(!changed.contains("networks"), "{changed}");

    let rotated = tokend(&["token", "rotate", id, "--grace-period", "1h"]);
    assert!(text(&rotated.stderr).contains(&format!("rotated from  {id}")), "{}", text(&rotated.stderr));
    let new = printed(rotated);
    assert_eq!((new.len(), new.ends_with('\n')), (77, true), "the secret alone, for a pipe");
    let new = new.trim_end();
    assert_eq!(rpc::verdict(&address, &root, new), Verdict::MissingScope);
    let again = tokend(&["token", "rotate", id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("TOKEN_ROTATED") && again.stdout.is_empty());

    let new_id = &new[5..27];
    let disabled = json(tokend(&["token", "disable", new_id, "--reason", "found in a log", "--json"]));
    assert_eq!(disabled["token"]["state"], "TOKEN_STATE_DISABLED");
    let noted = json(tokend(&["audit", "list", "--token", new_id, "--limit", "1", "--json"]));
    assert_eq!(noted["kind"], "TOKEN_EVENT_KIND_DISABLED");
    let reason =
        noted["changes"].as_array().unwrap().iter().find(|change| change["field"] == "disable_reason");
    assert_eq!(reason.unwrap()["newValue"], "found in a log");
    let long = tokend(&["token", "disable", new_id, "--reason", &"x".repeat(501)]);
    let message = text(&long.stderr);
    assert!(message.contains("INVALID_ARGUMENT") && message.contains("reason"), "{message}");
    let listed = printed(tokend(&["token", "list", "--state", "disabled", "--json"]));
    assert_eq!(listed.lines().count(), 1);
    let enabled = printed(tokend(&["token", "enable", new_id]));
    assert!(enabled.contains("\nstate         active\n") && !enabled.contains("disabled"), "{enabled}");

    let found = tokend(&["token", "list", "--name-contains", "DESK", "--json"]);
    assert_eq!(printed(found).lines().count(), 2);
    let revoked = operate(&address, &root, &["token", "revoke", "--from-stdin", "--json"], &old);
    assert_eq!(json(revoked)["token"]["state"], "TOKEN_STATE_REVOKED");
    assert_eq!(rpc::verdict(&address, &root, new), Verdict::Revoked, "what was rotated from it");
    let left = json(tokend(&["user", "revoke", "ada", "--json"]));
    assert_eq!(left["revokedCount"], "0");
    printed(tokend(&create));
    let left = printed(tokend(&["user", "revoke", "ada", "--reason", "has left"]));
    assert!(
        left.starts_with("revoked  1 in the organization \"default\"\nrefused everywhere from "),
        "{left}"
    );
}

#[test]
fn wrong_usage_exits_with_status_2_and_a_refusal_with_1() {
    let (_server, address, root) = started();
    let id = &root[5..27];

    for wrong in [
        &["token", "get"][..],
        &["token", "update", id],
        &["token", "update", id, "--scope", "a", "--no-scopes"],
        &["token", "rotate"],
        &["token", "rotate", id, "--ttl", "1d", "--no-expiration"],
        &["token", "revoke"],
        &["token", "revoke", id, "--from-stdin"],
        &["token", "disable"],
        &["policy", "set", "--most-active-tokens-per-user", "0"],
        &["user", "revoke"],
        &["user", "revoke", ""],
    ] {
        assert_eq!(operate(&address, &root, wrong, "").status.code(), Some(2), "{wrong:?}");
    }
    for refused in [
        &["token", "get", "0000000000000000000000"][..],
        &["token", "update", "nonsense", "--name", "n"],
        &["token", "rotate", "0000000000000000000000"],
        // The caller's own token: a lost response must not lock the caller out.
        &["token", "rotate", id],
        &["token", "revoke", "--from-stdin"],
        &["token", "enable", "0000000000000000000000"],
        &["policy", "set", "--longest-grace", "31d"],
    ] {
        assert_eq!(operate(&address, &root, refused, "no secret").status.code(), Some(1), "{refused:?}");
    }
    let own = ["token", "rotate", id, "--grace-period", "1m"];
    let successor = printed(operate(&address, &root, &own, ""));
    assert_eq!(rpc::list(&address, successor.trim_end()).unwrap().len(), 2);
}

#[test]
fn commands_set_and_show_a_policy() {
    let (_server, address, root) = started();
    let tokend = |arguments: &[&str]| operate(&address, &root, arguments, "");

    let set =
        ["policy", "set", "--longest-lifetime", "7d", "--expiration-required", "--allowed-scope", "repo:*"];
    let shown = printed(tokend(&set));
    assert!(
        shown.contains("longest lifetime  7d\n") && shown.contains("scopes            repo:*\n"),
        "{shown}"
    );
    let shown = json(tokend(&["policy", "get", "--json"]));
    assert_eq!(shown["policy"]["longestLifetime"], "604800s");
    assert_eq!(shown["updatedBy"], root[5..27]);
    let create = tokend(&["token", "create", "--user", "ada", "--name", "n", "--no-expiration"]);
    assert_eq!(create.status.code(), Some(1));
    assert!(text(&create.stderr).contains("POLICY_FORBIDS"), "{}", text(&create.stderr));
}

#[test]
fn a_dry_run_and_enforcement_print_the_outcome_of_each_token() {
    let (_server, address, root) = started();
    let tokend = |arguments: &[&str]| operate(&address, &root, arguments, "");
    let create =
        |name| ["token", "create", "--user", "ada", "--name", name, "--no-expiration", "--scope", "a"];
    let old = printed(tokend(&create("old")));
    let new = printed(tokend(&create("new")));
    let (old, new) = (&old[5..27], &new[5..27]);
    let rules = ["--longest-lifetime", "7d", "--expiration-required", "--most-active-tokens-per-user", "1"];

    let tried = tokend(&[&["policy", "dry-run"], &rules[..]].concat());
    assert!(
        text(&tried.stderr).starts_with("2 tokens of \"default\" break the policy"),
        "{}",
        text(&tried.stderr)
    );
    let tried = printed(tried);
    let first =
        format!("{old}  \"ada\"  \"old\"  expiration_required,most_active_tokens_per_user: is revoked\n");
    let second = format!("{new}  \"ada\"  \"new\"  expiration_required: expires ");
    assert!(tried.starts_with(&first) && tried.contains(&second), "{tried}");
    let untried = printed(tokend(&["policy", "dry-run"]));
    assert_eq!(untried, "", "no policy is set");

    printed(tokend(&[&["policy", "set", "--reuse-detection"], &rules[..]].concat()));
    assert_eq!(printed(tokend(&["policy", "dry-run"])), tried);
    let done = printed(tokend(&["policy", "enforce", "--json"]));
    let done: Vec<serde_json::Value> = done.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&done[0]["token"]["id"], &done[0]["revoked"]), (&old.into(), &true.into()));
    assert_eq!((&done[1]["token"]["id"], &done[1]["rules"][0]), (&new.into(), &"expiration_required".into()));
    let shown = json(tokend(&["token", "get", new, "--json"]));
    assert_eq!(shown["expireTime"], done[1]["newExpireTime"]);
    let again = tokend(&["policy", "enforce"]);
    assert!(text(&again.stderr).starts_with("0 tokens of \"default\" adjusted, in effect everywhere from "));
    assert!(printed(tokend(&["policy", "get"])).contains("\nreuse             revokes\n"));
}

#[test]
fn commands_set_show_and_delete_plans() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();
    let root = test_dir.root_secret();
    let tokend = |arguments: &[&str]| operate(&address, &root, arguments, "");
    let reads = "name=reads,per=token,rate=100/1m,burst=20,on-outage=admit";
    let credits = "name=credits,per=user,initial=1000,refill=500/month,mode=add";

    let set = printed(tokend(&["plan", "set", "free", "--limit", reads, "--limit", credits]));

    assert!(set.contains(reads) && set.contains(credits), "{set}");
    assert_eq!(printed(tokend(&["plan", "get", "free"])), set);
    let shown = json(tokend(&["plan", "get", "free", "--json"]));
    assert_eq!(shown["limits"][1]["credits"]["refill"]["period"], "CALENDAR_PERIOD_MONTH");
    let table = printed(tokend(&["plan", "list"]));
    assert!(table.contains("reads credits"), "{table}");
    let create = ["token", "create", "--user", "ada", "--name", "laptop", "--ttl", "30d", "--plan", "free"];
    let id = printed(tokend(&create))[5..27].to_owned();
    assert!(printed(tokend(&["token", "get", &id])).contains("plan          free\n"));
    let policy = tokend(&["policy", "set", "--plan-required", "--default-plan", "free"]);
    assert!(printed(policy).contains("required, free by default"));
    printed(tokend(&["policy", "set"]));

    let request_id = "0d3f9c4e-6a7b-4c8d-9e0f-1a2b3c4d5e6f";
    let add = ["plan", "add-credits", "free", "--limit", "credits", "--user", "ada", "--amount", "200"];
    let add = [&add[..], &["--request-id", request_id]].concat();
    for _ in 0..2 {
        assert_eq!(printed(tokend(&add)), "added 200 to \"credits\": the balance is 1200\n");
    }
    assert_eq!(json(tokend(&[&add[..], &["--json"]].concat()))["balance"], "1200");
    let left = printed(tokend(&["token", "limits", &id]));
    assert!(left.contains("reads") && left.contains("1200"), "{left}");
    assert_eq!(json(tokend(&["token", "limits", &id, "--json"]))["limits"][0]["remaining"], "20");

    let refused = tokend(&["plan", "delete", "free"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("PLAN_IN_USE"), "{}", text(&refused.stderr));
    let tried = tokend(&["plan", "delete", "free", "--dry-run"]);
    assert!(text(&tried.stderr).contains("would not be deleted: 1 tokens"), "{}", text(&tried.stderr));
    assert!(printed(tried).contains(&id));
    printed(tokend(&["token", "update", &id, "--no-plan"]));
    assert!(printed(tokend(&["plan", "delete", "free"])).contains("0 ended tokens"));
    assert_eq!(printed(tokend(&["plan", "list"])).lines().count(), 1);
}

#[test]
fn commands_disable_enable_and_list_users() {
    let (_server, address, root) = started();
    let tokend = |arguments: &[&str]| operate(&address, &root, arguments, "");
    let create =
        ["token", "create", "--user", "ada", "--name", "laptop", "--ttl", "30d", "--scope", "orders:read"];
    let secret = printed(tokend(&create)).trim_end().to_owned();
    let service = printed(tokend(&[&create[..], &["--service"]].concat())).trim_end().to_owned();
    let shown = printed(tokend(&["token", "get", &service[5..27]]));
    assert!(shown.contains("\nowner         service account\n"), "{shown}");
    let listed = tokend(&["token", "list", "--owner-kind", "service", "--json"]);
    assert_eq!(json(listed)["id"], service[5..27]);

    let disabled = json(tokend(&["user", "disable", "ada", "--reason", "on leave", "--json"]));
    assert_eq!((&disabled["disabledCount"], &disabled["organizationId"]), (&"1".into(), &"default".into()));
    assert_eq!(rpc::verdict(&address, &root, &secret), Verdict::Disabled);
    assert_eq!(rpc::verdict(&address, &root, &service), Verdict::Valid);
    let refused = tokend(&create);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("USER_DISABLED"), "{}", text(&refused.stderr));
    let again = printed(tokend(&["user", "disable", "ada"]));
    assert!(
        again.contains("\n0 tokens put out of use") && again.contains("refused everywhere from"),
        "{again}"
    );
    let user = json(tokend(&["user", "list", "--disabled", "--json"]));
    assert_eq!((&user["userId"], &user["disableReason"]), (&"ada".into(), &"on leave".into()));
    assert_eq!((&user["activeCount"], &user["tokenCount"]), (&"0".into(), &"1".into()));
    let table = printed(tokend(&["user", "list", "--organization", "default"]));
    assert_eq!(table.lines().count(), 4, "{table}");
    let noted = json(tokend(&["audit", "list", "--event", "user_disabled", "--json"]));
    assert_eq!((&noted["attribution"], &noted["actingUser"]), (&"ATTRIBUTION_PROVEN".into(), &"root".into()));
    assert_eq!((noted.get("tokenId"), &noted["ownerKind"]), (None, &"OWNER_KIND_USER".into()));
    assert!(printed(tokend(&["audit", "list", "--limit", "1"])).contains("root (proven)"));

    let counted = printed(tokend(&["usage", "--by", "day", "--user", "ada"]));
    assert!(counted.ends_with("Z\n") && counted.contains(" to "), "{counted}");
    let counted = json(tokend(&["usage", "--token", &service[5..27], "--json"]));
    assert!(counted["startTime"].is_string() && counted["endTime"].is_string(), "{counted}");

    let enabled = printed(tokend(&["user", "enable", "ada"]));
    assert!(enabled.contains("\n1 tokens no longer out of use") && enabled.contains("accepted"), "{enabled}");
    assert_eq!(rpc::verdict(&address, &root, &secret), Verdict::Valid);
    let gone = json(tokend(&["user", "revoke", "ada", "--service", "--json"]));
    assert_eq!(gone["revokedCount"], "1");
    assert_eq!(rpc::verdict(&address, &root, &secret), Verdict::Valid);
}
