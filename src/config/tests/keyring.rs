//! Which keyring is used, other users' access to it, and errors in it.

use super::*;

#[test]
fn a_database_without_a_keyring_is_refused_with_how_to_create_one() {
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
        assert!(message(&refused).contains("line 3"), "{}", message(&refused));
        assert!(!message(&refused).contains("canary"));
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
            Storage::Private { keyring, .. } => keyring.unwrap().key_ids().next().unwrap(),
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
fn migrate_needs_no_keyring_but_checks_one_that_is_given() {
    let resolve = |pairs: &[(&str, &str)]| {
        let flags = Migrate::try_parse_from(["migrate", "--database-url", URL]).unwrap().flags;
        flags.resolve(&environment(pairs))
    };

    assert!(resolve(&[]).is_ok());
    let refused = resolve(&[("TOKEND_KEYS", "no key")]).err().unwrap();
    assert!(matches!(refused, ConfigError::KeyringInvalid { .. }), "{refused:?}");
}
