//! Which database is used, and that its password is never shown.

use super::*;
use crate::store::PoolerMode;

#[test]
fn a_password_in_the_database_flag_is_refused_and_not_repeated() {
    for url in [
        "postgres://u:canary@h/d",
        "postgres://h/d?user=u&password=canary",
        "postgres://h/d?pass%77ord=canary",
    ] {
        let refused = refusal(&["--database-url", url], &[("TOKEND_KEYS", KEY)]);

        assert!(matches!(refused, ConfigError::PasswordInFlag { .. }), "{url}: {refused:?}");
        assert!(!message(&refused).contains("canary"));
    }
}

#[test]
fn a_database_flag_without_a_password_and_a_variable_with_one_are_accepted() {
    let by_flag = serve(&["--database-url", "postgres://u@h:1/d?sslmode=disable"], &[("TOKEND_KEYS", KEY)]);
    let by_variable = serve(&[], &[("DATABASE_URL", "postgres://u:p@h/d"), ("TOKEND_KEYS", KEY)]);

    assert!(matches!(by_flag, Ok((_, Storage::Shared { .. }))));
    assert!(matches!(by_variable, Ok((_, Storage::Shared { .. }))));
}

#[test]
fn a_direct_database_url_is_accepted_only_with_a_database_url() {
    let pooled = [("DATABASE_URL", "postgres://pooler/d"), ("TOKEND_KEYS", KEY)];
    let direct = ["--direct-database-url", "postgres://direct/d", "--database-pooling", "transaction"];
    let Storage::Shared { database, direct: Some(past), .. } = serve(&direct, &pooled).unwrap().1 else {
        panic!("no way past the pooler")
    };

    assert_eq!((database.options.get_host(), database.pooling), ("pooler", PoolerMode::Transaction));
    assert_eq!((past.options.get_host(), past.pooling), ("direct", PoolerMode::Session));
    for part in direct.chunks(2) {
        let refused = refusal(part, &[]);
        assert!(matches!(refused, ConfigError::NoDatabaseToPool), "{refused:?}");
    }
    let refused = refusal(&["--direct-database-url", "postgres://u:canary@h/d"], &pooled);
    assert!(matches!(refused, ConfigError::PasswordInFlag { .. }), "{refused:?}");
    assert!(!message(&refused).contains("canary"));
}

#[test]
fn tokend_database_url_wins_over_database_url_and_the_file() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory, "tokend.toml", "database-url = \"postgres://file/d\"\n", 0o644);
    let host = |flags: &[&str], pairs: &[(&str, &str)]| {
        let pairs = [pairs, &[("TOKEND_KEYS", KEY), ("TOKEND_CONFIG", text(&file))]].concat();
        match serve(flags, &pairs).unwrap().1 {
            Storage::Shared { database, .. } => database.options.get_host().to_owned(),
            Storage::Private { .. } => panic!("no database"),
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
        assert!(!message(&refused).contains("canary"), "{}", message(&refused));
    }
}

#[test]
fn a_parameter_that_would_have_no_effect_is_refused_and_not_repeated() {
    for query in
        ["sslmod=verify-full", "canary", "sslmode=require&SSLMODE=canary", "%73slmodes=require", "#canary"]
    {
        let url = format!("postgres://u@h/d?{query}");
        let refused = refusal(&[], &[("DATABASE_URL", &url), ("TOKEND_KEYS", KEY)]);

        assert!(matches!(refused, ConfigError::DatabaseUrlParameter { .. }), "{refused:?}");
        assert!(!message(&refused).contains("canary"), "{}", message(&refused));
    }
    for query in ["sslmode=require", "%73slmode=require&options[lock_timeout]=9&&host=/run"] {
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
    assert!(!message(&refused).contains("canary"));
    assert!(serve(&["--config", text(&private)], &[("TOKEND_KEYS", KEY)]).is_ok());
}

#[test]
fn a_private_postgres_cannot_be_left_without_migrations() {
    let refused = refusal(&["--no-migrate"], &[]);

    assert!(matches!(refused, ConfigError::NoMigrateWithoutDatabase), "{refused:?}");
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

/// Returns the message about the part that is wrong.
fn problem(url: &str, pairs: &[(&str, &str)]) -> String {
    let pairs = [&[("DATABASE_URL", url), ("TOKEND_KEYS", KEY)], pairs].concat();
    let refused = refusal(&[], &pairs);
    assert!(matches!(refused, ConfigError::DatabaseUrl { .. }), "{refused:?}");
    assert!(!message(&refused).contains("canary"), "{}", message(&refused));
    refused.to_string()
}

#[test]
fn a_part_that_cannot_be_used_is_named_and_not_repeated() {
    for (url, part) in [
        ("postgres://u@h:canary/d", "port"),
        ("postgres://u@h:0/d", "port"),
        ("postgres://u:can/ary@h/d", "port"),
        ("postgres://u:pw@canary@h/d", "host"),
        ("postgres://u@can ary/d", "host"),
        ("postgres://u@[::1/d", "square brackets"),
        ("postgres://u:can%ary@h/d", "'%'"),
        ("postgres://u@h/d?sslmode=canary", "sslmode"),
        ("postgres://u@h/d?hostaddr=canary", "hostaddr"),
        ("postgres://u@h/d?statement-cache-capacity=canary", "statement-cache-capacity"),
        ("postgres://u@one,two/d?target_session_attrs=read-write", "several hosts"),
        ("postgres://u@h/d?target_session_attrs=standby", "target_session_attrs"),
        ("postgres://u@h/d?sslmode=verify-full&hostaddr=::1", "hostaddr"),
    ] {
        let shown = problem(url, &[]);
        assert!(shown.contains(part), "{url}: {shown}");
    }
    let shown = problem("postgres://u:can/ary@h/d", &[]);
    assert!(shown.contains("'/' as %2F"), "{shown}");
}

#[test]
fn variables_that_psql_obeys_and_tokend_does_not_are_refused() {
    for (name, value) in [
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGSSLCRL", "/crl"),
        ("PGSERVICE", "tokend"),
        ("PGSSLMODE", "on"),
        ("PGPORT", "postgres"),
        ("PGTARGETSESSIONATTRS", "read-only"),
    ] {
        problem("postgres://u@h/d", &[(name, value)]);
    }
    let both = problem("postgres://u@h/d?options=-c%20jit=off", &[("PGOPTIONS", "-c jit=off")]);
    assert!(both.contains("PGOPTIONS"), "{both}");
    assert!(
        serve(&[], &[("DATABASE_URL", URL), ("TOKEND_KEYS", KEY), ("PGCHANNELBINDING", "prefer")]).is_ok()
    );
}

#[test]
fn a_ca_that_would_not_be_used_is_refused() {
    let directory = TempDir::new().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let ca = write(&directory, "ca", &certificate.cert.pem(), 0o644);
    let other = write(&directory, "other", "no certificate", 0o644);
    let mode = |query: &str, pairs: &[(&str, &str)]| {
        let url = format!("postgres://u@h/d?{query}");
        let pairs = [&[("DATABASE_URL", &*url), ("TOKEND_KEYS", KEY)], pairs].concat();
        match serve(&[], &pairs) {
            Ok((_, Storage::Shared { database, .. })) => format!("{:?}", database.options.get_ssl_mode()),
            Ok(_) => panic!("no database"),
            Err(error) => {
                assert!(error.to_string().to_lowercase().contains("ssl"), "{error}");
                "refused".to_owned()
            }
        }
    };
    let named = |mode: &str| format!("sslrootcert={}{mode}", text(&ca));

    assert_eq!(mode(&named("&sslmode=require"), &[]), "VerifyCa");
    assert_eq!(mode(&named("&sslmode=verify-ca"), &[]), "VerifyCa");
    assert_eq!(mode(&named("&sslmode=verify-full"), &[]), "VerifyFull");
    assert_eq!(mode("sslmode=require", &[("PGSSLROOTCERT", text(&ca))]), "VerifyCa");
    assert_eq!(mode("sslmode=require", &[]), "Require");
    assert_eq!(mode("sslmode=verify-full", &[]), "VerifyFull");
    for weak in ["", "&sslmode=prefer", "&sslmode=allow", "&sslmode=disable"] {
        assert_eq!(mode(&named(weak), &[]), "refused", "{weak}");
    }
    assert_eq!(mode("", &[("PGSSLROOTCERT", text(&ca))]), "refused");
    assert_eq!(mode("sslmode=require&sslrootcert=system", &[]), "refused");
    assert_eq!(mode("sslrootcert=system", &[("SSL_CERT_FILE", text(&ca))]), "VerifyFull");
    assert_eq!(mode("sslrootcert=system", &[("SSL_CERT_FILE", "/nowhere")]), "refused");
    assert_eq!(mode(&named("&sslmode=verify-full"), &[("SSL_CERT_FILE", "/nowhere")]), "VerifyFull");
    assert_eq!(mode("sslmode=verify-ca", &[]), "refused");
    assert_eq!(mode("sslmode=verify-full&sslrootcert=/nowhere", &[]), "refused");
    assert_eq!(mode(&format!("sslmode=require&sslrootcert={}", text(&other)), &[]), "refused");
    assert_eq!(mode(&format!("sslmode=require&sslcert={}", text(&ca)), &[]), "refused");
    // Where libpq looks for a CA if none is named.
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join(".postgresql")).unwrap();
    fs::copy(&ca, home.path().join(".postgresql/root.crt")).unwrap();
    assert_eq!(mode("sslmode=require", &[("HOME", text(home.path()))]), "VerifyCa");
    // Postgres does not support TLS on a socket.
    assert_eq!(mode("host=/run&sslmode=verify-full", &[]), "Disable");
}
