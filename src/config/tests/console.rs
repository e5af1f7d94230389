//! Where the console is served, and under which name.

use super::*;

fn listens(flags: &[&str], pairs: &[(&str, &str)]) -> Option<String> {
    serve(flags, pairs).unwrap().0.console.listen.map(|address| address.to_string())
}

#[test]
fn the_console_is_on_beside_a_private_postgres_and_off_beside_others_unless_it_is_asked_for() {
    let shared = [("DATABASE_URL", URL), ("TOKEND_KEYS", KEY)];
    assert_eq!(listens(&[], &[]).as_deref(), Some("127.0.0.1:50080"));
    assert_eq!(listens(&["--console-listen", "off"], &[]), None);
    assert_eq!(listens(&[], &[("TOKEND_CONSOLE_LISTEN", "off")]), None);
    assert_eq!(listens(&[], &shared), None);
    assert_eq!(listens(&["--console-listen", "[::1]:9"], &shared).as_deref(), Some("[::1]:9"));
    let directory = TempDir::new().unwrap();
    let file = write(&directory, "tokend.toml", "console-listen = \"127.0.0.1:7\"", 0o600);
    assert_eq!(listens(&["--config", text(&file)], &shared).as_deref(), Some("127.0.0.1:7"));
    for bad in ["", "on", "50080", "localhost:50080"] {
        assert!(Serve::try_parse_from(["serve", "--console-listen", bad]).is_err(), "{bad}");
    }
}

#[test]
fn what_others_can_reach_has_a_name_and_is_encrypted() {
    let open = ["--console-listen", "0.0.0.0:50080"];
    let tls = ["--tls-certificate", "/x/c.pem", "--tls-key", "/x/k.pem"];
    let with =
        |more: &[&[&str]]| serve(&more.concat(), &[]).map(|(settings, _)| settings.console.origin.is_some());
    assert!(matches!(with(&[&open]), Err(ConfigError::PlaintextExposed(_))));
    assert!(matches!(with(&[&open, &["--insecure-plaintext"]]), Err(ConfigError::ConsoleWithoutOrigin(_))));
    assert!(matches!(with(&[&open, &tls]), Err(ConfigError::ConsoleWithoutOrigin(_))));
    let named = ["--console-origin", "https://tokens.example.org"];
    assert!(matches!(with(&[&open, &tls, &named]), Ok(true)));
    // A proxy on this machine encrypts.
    assert!(matches!(with(&[&named]), Ok(true)));

    let plain = ["--console-origin", "http://tokens.example.org"];
    assert!(matches!(with(&[&plain]), Err(ConfigError::ConsoleOriginPlaintext)));
    assert!(matches!(with(&[&open, &tls, &plain]), Err(ConfigError::ConsoleOriginPlaintext)));
    assert!(matches!(with(&[&open, &plain, &["--insecure-plaintext"]]), Ok(true)));
    assert!(matches!(with(&[&["--console-origin", "http://localhost:8080"]]), Ok(true)));
    for bad in ["tokens.example.org", "https://tokens.example.org/", "https://u:canary@h", "*"] {
        let error = refusal(&["--console-origin", bad], &[]);
        assert!(
            matches!(error, ConfigError::ConsoleOrigin(_)) && !message(&error).contains("canary"),
            "{bad}"
        );
    }
}

#[test]
fn portal_sessions_are_embedded_by_listed_origins_and_only_where_browsers_keep_them() {
    let named = ["--console-origin", "https://tokens.example.org"];
    let embed = ["--console-embed-origins", "https://a.example.org, https://b.example.org:8443"];
    let settings = serve(&[&named[..], &embed].concat(), &[]).unwrap().0;
    let listed: Vec<_> =
        settings.console.embedders.iter().map(|origin| origin.authority().to_owned()).collect();
    assert_eq!(listed, ["a.example.org", "b.example.org:8443"]);
    assert!(serve(&[], &[]).unwrap().0.console.embedders.is_empty());
    assert!(serve(&embed, &[]).is_ok(), "on loopback");
    let plain = ["--console-origin", "http://tokens.example.org", "--insecure-plaintext"];
    let open = ["--console-listen", "0.0.0.0:50080"];
    assert!(matches!(
        refusal(&[&plain[..], &open, &embed].concat(), &[]),
        ConfigError::PrivatePostgresPlaintext
    ));
    for bad in ["*", "https://*.example.org", "app.example.org", "https://u:canary@b.example", "https://a b"]
    {
        let error = refusal(&["--console-embed-origins", bad], &[]);
        assert!(
            matches!(error, ConfigError::ListedOrigin { .. }) && !message(&error).contains("canary"),
            "{bad}"
        );
    }
}
