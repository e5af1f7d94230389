//! No setting is accepted that does nothing, wherever it is given; nor a flag that allows what is not done.

use super::*;

/// A setting without its dashes, a value, what it does nothing beside, and what has to be given for it to count.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const TLS: [&str; 4] = ["--tls-certificate", "/x/certificate.pem", "--tls-key", "/x/key.pem"];
const HTTP: &[&str] = &["--http-listen", "127.0.0.1:9090"];
const COLLECTOR: &[&str] = &["--otlp-endpoint", "https://collector.example:4317"];

const OFF: [&str; 2] = ["--console-listen", "off"];
const CONSOLE: &[&str] = &["--console-listen", "127.0.0.1:50080"];

const SETTINGS: [Case; 15] = [
    ("trusted-proxies", "10.0.0.0/8", &OFF, HTTP),
    ("trusted-proxies", "10.0.0.0/8", &OFF, &["--ext-authz"]),
    (
        "trusted-proxies",
        "10.0.0.0/8",
        &["--grpc-web-origins", "https://a.example", "--console-listen", "off"],
        CONSOLE,
    ),
    ("console-origin", "https://a.example", &OFF, CONSOLE),
    ("console-embed-origins", "https://a.example", &OFF, CONSOLE),
    ("gateway-organization", "acme", &[], HTTP),
    ("gateway-organization", "acme", &[], &["--ext-authz"]),
    ("identity-header-prefix", "x-acme-", &[], HTTP),
    ("identity-header-prefix", "x-acme-", &[], &["--ext-authz"]),
    ("token-review", "k8s:prod", &["--ext-authz"], HTTP),
    (
        "token-review-audiences",
        "k8s",
        HTTP,
        &["--http-listen", "127.0.0.1:9090", "--token-review", "k8s:prod"],
    ),
    ("trace-sample-ratio", "0.5", &[], COLLECTOR),
    ("max-connection-age-grace", "1m", &["--max-connection-age", "0s"], &["--max-connection-age", "1h"]),
    ("tls-client-ca", "/x/ca.pem", &[], &TLS),
    ("database-pooling", "transaction", &[], &["--database-url", URL]),
];

/// Flags that allow something, what they do nothing beside, and what they allow.
const PERMISSIONS: [(&str, &[&str], &[&str]); 4] = [
    ("--insecure-plaintext", &TLS, &["--listen", "0.0.0.0:50051"]),
    ("--otlp-insecure", &[], &["--otlp-endpoint", "http://collector.example:4317"]),
    ("--allow-fsync-off", &[], &["--database-url", URL]),
    ("--database-insecure", &[], &["--database-url", "postgres://tokend@db.example/tokend"]),
];

/// Demands that what was given is refused by its name.
fn refused(arguments: &[&str], pairs: &[(&str, &str)], setting: &str) {
    let pairs = [&[("TOKEND_KEYS", KEY)], pairs].concat();
    let Err(error) = serve(arguments, &pairs) else {
        panic!("{setting} is accepted: {arguments:?} {pairs:?}")
    };
    let nothing = matches!(
        error,
        ConfigError::WithoutEffect { .. }
            | ConfigError::TokenReviewWithoutListener
            | ConfigError::TlsIncomplete { .. }
            | ConfigError::NoDatabaseToPool
    );
    assert!(nothing && error.to_string().contains(setting), "{setting}: {error}");
}

#[test]
fn a_setting_without_effect_is_refused_from_every_source() {
    let directory = TempDir::new().unwrap();
    for (name, value, others, missing) in SETTINGS {
        let flag = format!("--{name}");
        let variable = format!("TOKEND_{}", name.replace('-', "_").to_uppercase());
        let number = value.parse::<f64>().is_ok();
        let line = if number { format!("{name} = {value}\n") } else { format!("{name} = \"{value}\"\n") };
        let file = write(&directory, "tokend.toml", &line, 0o600);
        for (given, pairs) in [
            (vec![&*flag, value], vec![]),
            (vec![], vec![(&*variable, value)]),
            (vec!["--config", text(&file)], vec![]),
        ] {
            refused(&[&*given, others].concat(), &pairs, &flag);
            let arguments = [&*given, missing].concat();
            let used = serve(&arguments, &[&[("TOKEND_KEYS", KEY)], &*pairs].concat());
            assert!(used.is_ok(), "{arguments:?} {pairs:?}: {}", used.err().unwrap());
        }
    }
}

#[test]
fn a_permission_that_nothing_needs_is_refused() {
    for (flag, others, allowed) in PERMISSIONS {
        refused(&[&[flag], others].concat(), &[], flag);
        let arguments = [&[flag], allowed].concat();
        let used = serve(&arguments, &[("TOKEND_KEYS", KEY)]);
        assert!(used.is_ok(), "{arguments:?}: {}", used.err().unwrap());
    }
}
