//! Leaked secrets: the printed rules in a real scanner, and a check that needs no server.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tokend::secret::TokenId;

use super::program::find;
use crate::support::client::{forged, unknown_id};

fn tokend(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tokend"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_secret_is_recognized_offline() {
    let id: TokenId = unknown_id();
    let secret = forged(id);

    let output = tokend(&["secret", "check"], &format!("{secret}\n"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), &*format!("{id}\n")));

    for wrong in ["", "tokd_", &secret[1..], &format!("{secret}0"), &secret.replace("tokd", "toke")] {
        let output = tokend(&["secret", "check"], wrong);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), ""), "{wrong:?}");
        assert!(
            text(&output.stderr).starts_with("no secret: ")
                && !text(&output.stderr).contains(&secret[10..40])
        );
    }
    let output = tokend(&["secret", "check", "--secret-prefix", "acme"], &secret.replace("tokd", "acme"));
    assert_eq!(output.status.code(), Some(3), "the checksum covers the prefix");
}

#[test]
fn a_real_scanner_finds_only_planted_secrets_with_the_printed_rule() {
    let Some(scanner) = find("kingfisher") else { return };
    let place = tempfile::tempdir().unwrap();
    let rule = tokend(&["rules", "kingfisher"], "");
    assert!(rule.status.success());
    let rules = place.path().join("rules.yml");
    fs::write(&rules, &rule.stdout).unwrap();
    let planted = place.path().join("planted");
    fs::create_dir(&planted).unwrap();
    let secrets: Vec<String> = (0..5).map(|_| forged(unknown_id())).collect();
    for (index, (before, after)) in
        [("key = \"", "\""), ("TOKEN=", "\n"), ("<t>", "</t>"), ("- ", ""), ("", "")].into_iter().enumerate()
    {
        fs::write(planted.join(format!("file{index}.txt")), format!("{before}{}{after}", secrets[index]))
            .unwrap();
    }
    // Almost secrets: too short, too long, with a letter before.
    let near = forged(unknown_id());
    fs::write(planted.join("near.txt"), format!("{} {near}x x{near}\n", &near[..75])).unwrap();
    // The sources of all dependencies, in cargo's registries, are the large tree. The registry without a
    // name is where `cargo package` unpacks tokend's own crates, which have an example of a secret.
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let registries = fs::read_dir(Path::new(&home.unwrap()).join("registry/src")).unwrap();
    let registries = registries.map(|registry| registry.unwrap());
    let sources: Vec<_> = registries
        .filter(|registry| !registry.file_name().to_string_lossy().starts_with('-'))
        .map(|registry| registry.path())
        .collect();
    assert!(!sources.is_empty());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = ["deploy", "docs", "migrations", "proto", "README.md"].map(|name| here.join(name));

    let output = Command::new(scanner)
        .arg("scan")
        .arg(&planted)
        .args(own)
        .args(sources)
        .arg("--rules-path")
        .arg(&rules)
        .args(["--load-builtins", "false", "--no-validate", "--format", "json", "--no-update-check"])
        .args(["--git-history", "none", "--no-extract-archives", "--no-rule-cache"])
        .env("HOME", place.path())
        .output()
        .unwrap();

    let report = text(&output.stdout);
    let first = report.lines().next().unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(first).expect("a report");
    let findings = report["findings"].as_array().unwrap();
    let mut found: Vec<&str> =
        findings.iter().map(|finding| finding["finding"]["snippet"].as_str().unwrap()).collect();
    let mut planted: Vec<&str> = secrets.iter().map(String::as_str).collect();
    found.sort_unstable();
    planted.sort_unstable();
    assert_eq!(found, planted);
    eprintln!(
        "scanned {} files, {} bytes",
        report["metadata"]["summary"]["blobs_scanned"], report["metadata"]["summary"]["bytes_scanned"]
    );
}
