//! Precedence, refusals and defaults of the configuration, without touching the process's own
//! environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::store::Pooling;
use crate::ways::Origin;

/// 32 zero bytes and 32 bytes of 0x01: keys for nothing but these tests.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const URL: &str = "postgres://tokend@localhost/tokend";

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Parser)]
struct Migrate {
    #[command(flatten)]
    flags: MigrateFlags,
}

#[derive(Parser)]
struct Bootstrap {
    #[command(flatten)]
    flags: BootstrapFlags,
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let mut all = vec![("HOME", "/home/ada")];
    all.extend_from_slice(pairs);
    Environment::of_pairs(&all, Account::Ordinary)
}

fn resolve(flags: &[&str], environment: &Environment) -> Result<(ServeSettings, Storage), ConfigError> {
    let line = ["serve"].iter().chain(flags);
    Serve::try_parse_from(line).unwrap().flags.resolve(environment)
}

fn serve(flags: &[&str], pairs: &[(&str, &str)]) -> Result<(ServeSettings, Storage), ConfigError> {
    resolve(flags, &environment(pairs))
}

fn refusal(flags: &[&str], pairs: &[(&str, &str)]) -> ConfigError {
    serve(flags, pairs).err().unwrap()
}

/// Everything that would be printed of an error, and its Debug.
fn told(error: &ConfigError) -> String {
    let mut text = format!("{error:?} {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn write(directory: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn proxies_are_trusted_where_they_are_named_and_never_everybody() {
    let (settings, _) = serve(&[], &[]).unwrap();
    assert_eq!(settings.ways.trusted_proxies.iter().count(), 0);
    let (settings, _) = serve(&["--trusted-proxies", "10.0.0.0/8, 2001:db8::/32"], &[]).unwrap();
    let trusted: Vec<String> = settings.ways.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "2001:db8::/32"]);

    for wide in ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.0/7", "10.0.0.1", "10.0.0.1/8", ""] {
        let line = ["serve", "--trusted-proxies", wide];
        assert!(Serve::try_parse_from(line).is_err(), "{wide}");
    }
    let error = refusal(&[], &[("TOKEND_TRUSTED_PROXIES", "0.0.0.0/0")]);
    assert!(matches!(error, ConfigError::Variable { name: "TOKEND_TRUSTED_PROXIES", .. }));
    let error = refusal(&["--gateway-organization", ""], &[]);
    assert!(matches!(error, ConfigError::GatewayOrganization(_)));
}

#[test]
fn pages_may_call_from_the_origins_that_are_named() {
    assert!(serve(&[], &[]).unwrap().0.ways.web_origins.is_empty());
    let (settings, _) =
        serve(&["--grpc-web-origins", "https://a.example, http://localhost:5173"], &[]).unwrap();
    let expected = ["https://a.example", "http://localhost:5173"].map(|text| Origin::parse(text).unwrap());
    assert_eq!(settings.ways.web_origins, expected);
    for wrong in ["*", "https://a.example/", "https://a.example,", ""] {
        let error = refusal(&["--grpc-web-origins", wrong], &[]);
        assert!(matches!(error, ConfigError::WebOrigin { .. }), "{wrong:?}");
    }
}

#[test]
fn token_reviews_are_answered_where_a_scope_says_so() {
    let found = |arguments: &[&str], environment: &[(&str, &str)]| {
        let review = serve(arguments, environment).unwrap().0.ways.token_review?;
        Some((review.scope.as_str().to_owned(), review.audiences.join(" ")))
    };
    let audience = "https://kubernetes.default.svc.cluster.local".to_owned();
    assert_eq!(found(&[], &[("TOKEND_TOKEN_REVIEW_AUDIENCES", "a")]), None);
    assert_eq!(found(&["--token-review", "k8s:prod"], &[]), Some(("k8s:prod".to_owned(), audience)));
    let named = [("TOKEND_TOKEN_REVIEW", "k8s"), ("TOKEND_TOKEN_REVIEW_AUDIENCES", "a, https://b")];
    assert_eq!(found(&[], &named), Some(("k8s".to_owned(), "a https://b".to_owned())));

    for scope in ["", "K8s", "tokend:all"] {
        assert!(matches!(refusal(&["--token-review", scope], &[]), ConfigError::TokenReview(_)), "{scope}");
    }
}

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
    assert_eq!(settings.last_use_interval, Duration::from_secs(30));
    assert!(settings.require_fsync);
    let cost = &settings.cost;
    assert_eq!((cost.memory_kib(), cost.iterations(), cost.parallelism()), (19_456, 2, 1));
    assert!(settings.hash_permits >= 1);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.log.filter.as_str(), "info");
    let Storage::Embedded { data_dir, keyring } = storage else { panic!("a database from nowhere") };
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
    assert!(!told(&refused).contains("canary"));
}

#[test]
fn unknown_and_empty_variables_are_left_alone() {
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
fn a_drain_of_more_than_ten_seconds_is_refused() {
    assert!("10s".parse::<DrainTimeout>().is_ok());
    assert!("10001ms".parse::<DrainTimeout>().is_err());
}

#[test]
fn a_password_in_the_database_flag_is_refused_and_not_repeated() {
    for url in [
        "postgres://u:canary@h/d",
        "postgres://h/d?user=u&password=canary",
        "postgres://h/d?pass%77ord=canary",
    ] {
        let refused = refusal(&["--database-url", url], &[("TOKEND_KEYS", KEY)]);

        assert!(matches!(refused, ConfigError::PasswordInFlag { .. }), "{url}: {refused:?}");
        assert!(!told(&refused).contains("canary"));
    }
}

#[test]
fn a_database_flag_without_a_password_and_a_variable_with_one_are_taken() {
    let by_flag = serve(&["--database-url", "postgres://u@h:1/d?sslmode=disable"], &[("TOKEND_KEYS", KEY)]);
    let by_variable = serve(&[], &[("DATABASE_URL", "postgres://u:p@h/d"), ("TOKEND_KEYS", KEY)]);

    assert!(matches!(by_flag, Ok((_, Storage::Shared { .. }))));
    assert!(matches!(by_variable, Ok((_, Storage::Shared { .. }))));
}

#[test]
fn a_way_past_the_pooler_is_taken_beside_a_database_and_nowhere_else() {
    let pooled = [("DATABASE_URL", "postgres://pooler/d"), ("TOKEND_KEYS", KEY)];
    let direct = ["--direct-database-url", "postgres://direct/d", "--database-pooling", "transaction"];
    let Storage::Shared { database, direct: Some(past), .. } = serve(&direct, &pooled).unwrap().1 else {
        panic!("no way past the pooler")
    };

    assert_eq!((database.options.get_host(), database.pooling), ("pooler", Pooling::Transaction));
    assert_eq!((past.options.get_host(), past.pooling), ("direct", Pooling::Session));
    for part in direct.chunks(2) {
        let refused = refusal(part, &[]);
        assert!(matches!(refused, ConfigError::NoDatabaseToPool), "{refused:?}");
    }
    let refused = refusal(&["--direct-database-url", "postgres://u:canary@h/d"], &pooled);
    assert!(matches!(refused, ConfigError::PasswordInFlag { .. }), "{refused:?}");
    assert!(!told(&refused).contains("canary"));
}

#[test]
fn our_own_database_variable_wins_over_the_general_one_and_over_the_file() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory, "tokend.toml", "database-url = \"postgres://file/d\"\n", 0o644);
    let host = |flags: &[&str], pairs: &[(&str, &str)]| {
        let pairs = [pairs, &[("TOKEND_KEYS", KEY), ("TOKEND_CONFIG", text(&file))]].concat();
        match serve(flags, &pairs).unwrap().1 {
            Storage::Shared { database, .. } => database.options.get_host().to_owned(),
            Storage::Embedded { .. } => panic!("no database"),
        }
    };
    let both = [("DATABASE_URL", "postgres://general/d"), ("TOKEND_DATABASE_URL", "postgres://own/d")];

    assert_eq!(host(&["--database-url", "postgres://flag/d"], &both), "flag");
    assert_eq!(host(&[], &both), "own");
    assert_eq!(host(&[], &both[..1]), "general");
    assert_eq!(host(&[], &[]), "file");
}

#[test]
fn a_url_of_another_database_is_refused_and_not_repeated() {
    for url in ["mysql://u:canary@h/d", "canary", "postgres://u:canary@h:port/d"] {
        let refused = refusal(&[], &[("DATABASE_URL", url), ("TOKEND_KEYS", KEY)]);

        assert!(matches!(refused, ConfigError::DatabaseUrl { .. }), "{refused:?}");
        assert!(!told(&refused).contains("canary"), "{}", told(&refused));
    }
}

#[test]
fn a_parameter_that_would_have_no_effect_is_refused_and_not_repeated() {
    for query in ["sslmod=verify-full", "canary", "sslmode=require&SSLMODE=canary", "%73slmodes=require"] {
        let url = format!("postgres://u@h/d?{query}");
        let refused = refusal(&[], &[("DATABASE_URL", &url), ("TOKEND_KEYS", KEY)]);

        assert!(matches!(refused, ConfigError::DatabaseUrlParameter { .. }), "{refused:?}");
        assert!(!told(&refused).contains("canary"), "{}", told(&refused));
    }
    for query in ["sslmode=require", "%73slmode=require&options[lock_timeout]=9&&host=/run", "#fragment"] {
        let url = format!("postgres://u@h/d?{query}");
        assert!(serve(&[], &[("DATABASE_URL", &url), ("TOKEND_KEYS", KEY)]).is_ok(), "{query}");
    }
}

#[test]
fn a_file_with_a_password_must_be_private() {
    let directory = TempDir::new().unwrap();
    let file = "database-url = \"postgres://u:canary@h/d\"\n";
    let open = write(&directory, "open.toml", file, 0o644);
    let private = write(&directory, "private.toml", file, 0o600);

    let refused = refusal(&["--config", text(&open)], &[("TOKEND_KEYS", KEY)]);

    assert!(matches!(refused, ConfigError::FileExposed(_)), "{refused:?}");
    assert!(!told(&refused).contains("canary"));
    assert!(serve(&["--config", text(&private)], &[("TOKEND_KEYS", KEY)]).is_ok());
}

#[test]
fn a_database_without_a_keyring_is_refused_and_told_how_to_make_one() {
    let refused = refusal(&["--database-url", URL], &[]);

    assert!(matches!(refused, ConfigError::NoKeyring), "{refused:?}");
    assert!(refused.to_string().contains("tokend keygen"));
}

#[test]
fn two_keyrings_in_the_environment_are_refused() {
    let refused = refusal(&[], &[("TOKEND_KEYRING", "/keyring"), ("TOKEND_KEYS", KEY)]);

    assert!(matches!(refused, ConfigError::TwoKeyrings), "{refused:?}");
}

#[test]
fn a_keyring_that_others_can_read_is_refused() {
    let directory = TempDir::new().unwrap();
    for mode in [0o660, 0o604, 0o644] {
        let keyring = write(&directory, "keyring", KEY, mode);

        let refused = refusal(&["--keyring", text(&keyring)], &[]);

        assert!(matches!(refused, ConfigError::KeyringExposed { .. }), "{refused:?}");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
}

#[test]
fn an_invalid_key_is_refused_with_its_line_and_not_repeated() {
    let directory = TempDir::new().unwrap();
    let lines = format!("# keys\n{KEY}\ncanary\n");
    let keyring = write(&directory, "keyring", &lines, 0o600);

    let by_file = refusal(&["--keyring", text(&keyring)], &[]);
    let by_text = refusal(&[], &[("TOKEND_KEYS", &lines)]);

    for refused in [by_file, by_text] {
        assert!(matches!(refused, ConfigError::KeyringInvalid { .. }), "{refused:?}");
        assert!(told(&refused).contains("line 3"), "{}", told(&refused));
        assert!(!told(&refused).contains("canary"));
    }
}

#[test]
fn a_keyring_flag_wins_over_the_environment_and_that_over_the_file() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory, "tokend.toml", "keyring = \"ring\"\n", 0o644);
    write(&directory, "ring", KEY, 0o600);
    let other = write(&directory, "other", OTHER_KEY, 0o600);
    let primary = |flags: &[&str], pairs: &[(&str, &str)]| {
        let pairs = [pairs, &[("TOKEND_CONFIG", text(&file))]].concat();
        match serve(flags, &pairs).unwrap().1 {
            Storage::Embedded { keyring, .. } => keyring.unwrap().key_ids().next().unwrap(),
            Storage::Shared { .. } => panic!("a database from nowhere"),
        }
    };

    let of_file = primary(&[], &[]);
    let of_text = primary(&[], &[("TOKEND_KEYS", OTHER_KEY)]);
    let of_flag = primary(&["--keyring", text(&other)], &[("TOKEND_KEYS", KEY)]);

    assert_ne!(of_file, of_text);
    assert_eq!(of_flag, of_text);
}

#[test]
fn plaintext_leaves_the_machine_only_when_that_is_said() {
    for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let refused = refusal(&["--listen", listen], &[]);

        assert!(matches!(refused, ConfigError::PlaintextExposed(_)), "{listen}: {refused:?}");
        assert!(serve(&["--listen", listen, "--insecure-plaintext"], &[]).is_ok());
    }
    for listen in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(serve(&["--listen", listen], &[]).is_ok(), "{listen}");
    }
}

#[test]
fn a_private_postgres_cannot_be_left_without_migrations() {
    let refused = refusal(&["--no-migrate"], &[]);

    assert!(matches!(refused, ConfigError::NoMigrateWithoutDatabase), "{refused:?}");
}

#[test]
fn the_data_directory_follows_the_account() {
    let data_dir = |environment: &Environment, flags: &[&str]| match resolve(flags, environment) {
        Ok((_, Storage::Embedded { data_dir, .. })) => data_dir,
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

#[test]
fn migrate_and_bootstrap_need_a_database_and_say_so() {
    let migrate = Migrate::try_parse_from(["migrate"]).unwrap().flags;
    let bootstrap = Bootstrap::try_parse_from(["bootstrap"]).unwrap().flags;
    let environment = environment(&[("TOKEND_KEYS", KEY)]);

    let refused = [migrate.resolve(&environment).err(), bootstrap.resolve(&environment).err()];

    for error in refused {
        let error = error.unwrap();
        assert!(matches!(error, ConfigError::NoDatabase), "{error:?}");
        assert!(error.to_string().contains("DATABASE_URL"));
    }
}

#[test]
fn migrate_needs_no_keyring_but_checks_one_that_is_given() {
    let resolve = |pairs: &[(&str, &str)]| {
        let flags = Migrate::try_parse_from(["migrate", "--database-url", URL]).unwrap().flags;
        flags.resolve(&environment(pairs))
    };

    assert!(resolve(&[]).is_ok());
    let refused = resolve(&[("TOKEND_KEYS", "no key")]).err().unwrap();
    assert!(matches!(refused, ConfigError::KeyringInvalid { .. }), "{refused:?}");
}

const MAPPING: &str = "tls-certificate = \"c\"\ntls-key = \"k\"\ntls-client-ca = \"a\"\n\
    [[client-certificate]]\nname = \"spiffe://example.org/gateway\"\n";

#[test]
fn tls_allows_an_address_beyond_loopback_and_its_paths_are_the_files() {
    let directory = TempDir::new().unwrap();
    let text = format!("listen = \"0.0.0.0:1\"\n{MAPPING}scopes = [\"tokend:verify:any\"]\n");
    let file = write(&directory, "tokend.toml", &text, 0o644);

    let (settings, _) = serve(&["--config", self::text(&file)], &[]).unwrap();

    let tls = settings.tls.unwrap();
    assert_eq!(tls.certificate, directory.path().join("c"));
    assert_eq!(tls.client_ca, Some(directory.path().join("a")));
}

#[test]
fn a_mapping_with_an_unknown_scope_or_none_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    for scopes in ["[\"tokend:admin\"]", "[\"reports:read\"]", "[]"] {
        let file = write(&directory, "tokend.toml", &format!("{MAPPING}scopes = {scopes}\n"), 0o644);

        let refused = refusal(&["--config", text(&file)], &[]);

        assert!(
            matches!(&refused, ConfigError::Mapping { name, .. } if name.contains("gateway")),
            "{refused:?}"
        );
    }
}

#[test]
fn two_mappings_for_one_name_are_refused() {
    let directory = TempDir::new().unwrap();
    let scopes = "scopes = [\"tokend:verify\"]\n";
    let twice = "[[client-certificate]]\nname = \"spiffe://example.org/gateway\"\n";
    let file = write(&directory, "tokend.toml", &format!("{MAPPING}{scopes}{twice}{scopes}"), 0o644);

    assert!(matches!(refusal(&["--config", text(&file)], &[]), ConfigError::Mapping { .. }));
}

#[test]
fn tls_files_without_those_that_they_need_are_refused() {
    for flags in [&["--tls-certificate", "c"][..], &["--tls-key", "k"], &["--tls-client-ca", "a"]] {
        assert!(matches!(refusal(flags, &[]), ConfigError::TlsIncomplete { .. }), "{flags:?}");
    }
    let directory = TempDir::new().unwrap();
    let lone = "[[client-certificate]]\nname = \"a\"\nscopes = [\"tokend:read\"]\n";
    let file = write(&directory, "tokend.toml", lone, 0o644);
    assert!(matches!(refusal(&["--config", text(&file)], &[]), ConfigError::MappingWithoutCa));
}
