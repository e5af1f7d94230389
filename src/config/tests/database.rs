//! Which database it is, and that its password is not told.

use super::*;
use crate::store::Pooling;

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
