//! The sources of settings, their precedence and their bounds.

use std::time::Duration;

use super::*;
use crate::telemetry::LogFormat;

#[test]
fn without_any_setting_the_documented_defaults_hold() {
    let (settings, storage) = serve(&[], &[]).unwrap();

    assert_eq!(settings.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.prefix.as_str(), "tokd");
    assert_eq!(settings.database_connections, 16);
    assert_eq!(settings.migration, Migration::AtStart);
    assert_eq!(settings.drain_timeout, Duration::from_secs(10));
    assert_eq!(settings.bounds.max_staleness, Duration::from_secs(1));
    assert_eq!(settings.bounds.outage_grace, Duration::ZERO);
    assert_eq!(settings.cache_bytes, 268_435_456);
    assert_eq!(settings.limits.response_memory_bytes, 67_108_864);
    assert_eq!(settings.last_use_interval, Duration::from_secs(30));
    assert!(settings.require_fsync);
    let cost = &settings.cost;
    assert_eq!((cost.memory_kib(), cost.iterations(), cost.parallelism()), (19_456, 2, 1));
    assert!(settings.hash_permits >= 1);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.log.filter.as_str(), "info");
    let Storage::Private { data_dir, keyring, .. } = storage else { panic!("a database from nowhere") };
    assert_eq!(data_dir, Path::new("/home/ada/.local/share/tokend"));
    assert!(keyring.is_none());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let directory = TempDir::new().unwrap();
    let file = "listen = \"127.0.0.1:1\"\ndatabase-connections = 1\ndrain-timeout = \"1s\"\n";
    let file = write(&directory, "tokend.toml", file, 0o644);

    let (settings, _) = serve(
        &["--config", text(&file), "--listen", "127.0.0.1:3"],
        &[("TOKEND_LISTEN", "127.0.0.1:2"), ("TOKEND_DATABASE_CONNECTIONS", "2")],
    )
    .unwrap();

    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.database_connections, 2);
    assert_eq!(settings.drain_timeout, Duration::from_secs(1));
}

#[test]
fn a_variable_can_switch_off_what_the_file_switches_on() {
    let directory = TempDir::new().unwrap();
    let file = "listen = \"0.0.0.0:1\"\ninsecure-plaintext = true\n";
    let file = write(&directory, "tokend.toml", file, 0o644);

    assert!(serve(&["--config", text(&file)], &[]).is_ok());
    let refused = refusal(&["--config", text(&file)], &[("TOKEND_INSECURE_PLAINTEXT", "false")]);

    assert!(matches!(refused, ConfigError::PlaintextExposed(_)), "{refused:?}");
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_line() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory, "tokend.toml", "listen = \"127.0.0.1:1\"\nlisten-on = 1\n", 0o644);

    let refused = refusal(&[], &[("TOKEND_CONFIG", text(&file))]).to_string();

    assert!(refused.starts_with(&format!("{}:2: ", text(&file))), "{refused}");
    assert!(refused.contains("`listen-on`"), "{refused}");
}

#[test]
fn a_broken_file_is_refused_without_quoting_it() {
    let directory = TempDir::new().unwrap();
    let file = "\ndatabase-url = \"postgres://u:canary@h/d\n";
    let file = write(&directory, "tokend.toml", file, 0o600);

    let refused = refusal(&["--config", text(&file)], &[]);

    assert!(matches!(refused, ConfigError::FileInvalid { line: 2, .. }), "{refused:?}");
    assert!(!message(&refused).contains("canary"));
}

#[test]
fn unknown_and_empty_variables_are_ignored() {
    let (settings, _) = serve(&[], &[("TOKEND_NO_SUCH", "x"), ("TOKEND_LISTEN", "")]).unwrap();

    assert_eq!(settings.listen.port(), 50051);
}

#[test]
fn an_invalid_variable_is_named() {
    for name in [
        "TOKEND_LISTEN",
        "TOKEND_DATABASE_CONNECTIONS",
        "TOKEND_DATABASE_POOLING",
        "TOKEND_HASH_PERMITS",
        "TOKEND_ARGON2_MEMORY_KIB",
        "TOKEND_ARGON2_ITERATIONS",
        "TOKEND_ARGON2_PARALLELISM",
        "TOKEND_DRAIN_TIMEOUT",
        "TOKEND_LOG_FORMAT",
        "TOKEND_LOG_LEVEL",
        "TOKEND_NO_MIGRATE",
        "TOKEND_INSECURE_PLAINTEXT",
    ] {
        let refused = refusal(&[], &[(name, "no=such=value")]);

        assert!(refused.to_string().contains(name), "{name}: {refused}");
    }
}

#[test]
fn a_staleness_outside_of_50_milliseconds_to_a_minute_is_refused() {
    for (text, allowed) in [("49ms", false), ("50ms", true), ("60s", true), ("60001ms", false)] {
        let chosen = serve(&[], &[("TOKEND_MAX_STALENESS", text)]);
        assert_eq!(chosen.is_ok(), allowed, "{text}");
    }
}

#[test]
fn a_cache_of_less_than_a_mebibyte_is_refused() {
    assert!("1048576".parse::<CacheBytes>().is_ok());
    assert!("1048575".parse::<CacheBytes>().is_err());
}

#[test]
fn response_memory_for_less_than_a_few_pages_is_refused() {
    assert!("10485760".parse::<ResponseMemoryBytes>().is_ok());
    assert!("10485759".parse::<ResponseMemoryBytes>().is_err());
}

#[test]
fn a_drain_of_more_than_ten_seconds_is_refused() {
    assert!("10s".parse::<DrainTimeout>().is_ok());
    assert!("10001ms".parse::<DrainTimeout>().is_err());
}

#[test]
fn the_default_data_directory_depends_on_the_account() {
    let data_dir = |environment: &Environment, flags: &[&str]| match resolve(flags, environment) {
        Ok((_, Storage::Private { data_dir, .. })) => data_dir,
        _ => panic!("no data directory"),
    };
    let pairs = [("XDG_DATA_HOME", "/data"), ("HOME", "/root")];

    let of_user = data_dir(&Environment::of_pairs(&pairs, Account::Ordinary), &[]);
    let of_root = data_dir(&Environment::of_pairs(&pairs, Account::Root), &[]);
    let of_flag = data_dir(&Environment::of_pairs(&pairs, Account::Root), &["--data-dir", "/x"]);
    let homeless = resolve(&[], &Environment::of_pairs(&[], Account::Ordinary)).err();

    assert_eq!(of_user, Path::new("/data/tokend"));
    assert_eq!(of_root, Path::new("/var/lib/tokend"));
    assert_eq!(of_flag, Path::new("/x"));
    assert!(matches!(homeless, Some(ConfigError::NoDataDirectory)));
}
