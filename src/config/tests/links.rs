//! Connections to other hosts use verified TLS, unless they are configured as insecure.

use super::*;

const INSECURE: &str = "TOKEND_DATABASE_INSECURE";

/// Returns whether the settings are refused for lack of verified TLS; panics if for another reason.
fn refused_as_unverified(flags: &[&str], pairs: &[(&str, &str)]) -> bool {
    let pairs = [&[("TOKEND_KEYS", KEY), (INSECURE, "false")], pairs].concat();
    match serve(flags, &pairs) {
        Ok(_) => false,
        Err(ConfigError::DatabaseUnverified { .. }) => true,
        Err(error) => panic!("refused for another reason: {error}"),
    }
}

#[test]
fn a_database_on_another_host_needs_verified_tls() {
    for (host, local) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("%2Frun%2Fpostgresql", true),
        ("db.example", false),
        ("192.0.2.1", false),
        ("10.0.0.1", false),
        ("0.0.0.0", false),
        ("localhost.example", false),
    ] {
        for (mode, verified) in [
            ("", false),
            ("?sslmode=disable", false),
            ("?sslmode=allow", false),
            ("?sslmode=prefer", false),
            ("?sslmode=require", false),
            ("?sslmode=verify-full", true),
        ] {
            let url = format!("postgres://u@{host}/d{mode}");
            let expected = !local && !verified;
            assert_eq!(refused_as_unverified(&[], &[("DATABASE_URL", &url)]), expected, "{url}");
            assert_eq!(refused_as_unverified(&["--database-url", &url], &[]), expected, "{url}");
            assert!(!refused_as_unverified(&[], &[("DATABASE_URL", &url), (INSECURE, "true")]), "{url}");
            let shown = ["--database-url", &url, "--database-insecure"];
            assert!(!refused_as_unverified(&shown, &[]), "{url}");
        }
    }
}

#[test]
fn the_host_that_is_connected_to_counts() {
    for (url, refused) in [
        ("postgres://u@localhost/d?host=db.example", true),
        ("postgres://u@db.example/d?host=localhost", false),
        ("postgres://u@db.example/d?host=/run", false),
        ("postgres://u@localhost/d?hostaddr=192.0.2.1", true),
    ] {
        assert_eq!(refused_as_unverified(&[], &[("DATABASE_URL", url)]), refused, "{url}");
    }
}

#[test]
fn the_direct_database_url_has_the_same_rules() {
    let pooled = [("DATABASE_URL", "postgres://u@localhost/d")];
    let direct = |url| ["--direct-database-url", url];

    assert!(refused_as_unverified(&direct("postgres://u@db.example/d?sslmode=require"), &pooled));
    assert!(!refused_as_unverified(&direct("postgres://u@db.example/d?sslmode=verify-full"), &pooled));
    assert!(!refused_as_unverified(&direct("postgres://u@localhost/d"), &pooled));
}

#[test]
fn the_rules_hold_for_every_command_with_a_database() {
    let environment = environment(&[
        ("TOKEND_KEYS", KEY),
        (INSECURE, "false"),
        ("DATABASE_URL", "postgres://u@db.example/d"),
    ]);
    let migrate = Migrate::try_parse_from(["migrate"]).unwrap().flags;
    let bootstrap = Bootstrap::try_parse_from(["bootstrap"]).unwrap().flags;

    for error in [migrate.resolve(&environment).err(), bootstrap.resolve(&environment).err()] {
        let error = error.unwrap();
        assert!(matches!(error, ConfigError::DatabaseUnverified { .. }), "{error:?}");
        let shown = error.to_string();
        assert!(shown.contains("sslmode=verify-full") && shown.contains("--database-insecure"), "{shown}");
        assert!(shown.contains("DATABASE_URL") && !shown.contains("db.example"), "{shown}");
    }
}

#[test]
fn spans_are_sent_to_another_host_only_over_tls_unless_allowed() {
    for endpoint in
        ["http://127.0.0.1:4317", "http://[::1]:4317", "http://localhost:4317/", "https://c.example"]
    {
        assert!(serve(&["--otlp-endpoint", endpoint], &[]).is_ok(), "{endpoint}");
    }
    for endpoint in ["http://c.example:4317", "http://192.0.2.1:4317", "http://localhost.example:4317"] {
        let refused = refusal(&["--otlp-endpoint", endpoint], &[]);
        assert!(matches!(refused, ConfigError::OtlpPlaintext), "{endpoint}: {refused:?}");
        assert!(serve(&["--otlp-endpoint", endpoint, "--otlp-insecure"], &[]).is_ok(), "{endpoint}");
    }
    for endpoint in [
        "c.example:4317",
        "ftp://c.example",
        "http://",
        "https://u:canary@c.example:4317",
        "https://c.example:99999",
        "http://127.0.0.1:",
        // OTLP over HTTP, which is not supported.
        "http://127.0.0.1:4318/v1/traces",
        "https://c.example/?a=b",
    ] {
        let refused = refusal(&["--otlp-endpoint", endpoint, "--otlp-insecure"], &[]);
        assert!(matches!(refused, ConfigError::OtlpEndpoint), "{endpoint}: {refused:?}");
        assert!(!message(&refused).contains("canary"));
    }
}
