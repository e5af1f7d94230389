//! Plaintext beyond this machine, and client certificates.

use super::*;

#[test]
fn plaintext_beyond_loopback_must_be_allowed_explicitly() {
    for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let refused = refusal(&["--listen", listen], &[]);

        assert!(matches!(refused, ConfigError::PlaintextExposed(_)), "{listen}: {refused:?}");
        assert!(serve(&["--listen", listen, "--insecure-plaintext"], &[]).is_ok());
    }
    for listen in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(serve(&["--listen", listen], &[]).is_ok(), "{listen}");
    }
}

const MAPPING: &str = "tls-certificate = \"c\"\ntls-key = \"k\"\ntls-client-ca = \"a\"\n\
    [[client-certificate]]\nname = \"uri:spiffe://example.org/gateway\"\n";

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
fn a_mapping_whose_name_has_no_kind_is_refused() {
    let directory = TempDir::new().unwrap();
    for name in ["spiffe://example.org/gateway", "admin.example.org", "ip:gateway", ""] {
        let file = MAPPING.replace("uri:spiffe://example.org/gateway", name);
        let file = write(&directory, "tokend.toml", &format!("{file}scopes = [\"tokend:read\"]\n"), 0o644);

        let refused = refusal(&["--config", text(&file)], &[]);

        assert!(matches!(refused, ConfigError::Mapping { .. }), "{name}: {refused:?}");
    }
}

#[test]
fn two_mappings_for_one_name_are_refused() {
    let directory = TempDir::new().unwrap();
    let scopes = "scopes = [\"tokend:verify\"]\n";
    let twice = "[[client-certificate]]\nname = \"uri:spiffe://example.org/gateway\"\n";
    let file = write(&directory, "tokend.toml", &format!("{MAPPING}{scopes}{twice}{scopes}"), 0o644);

    assert!(matches!(refusal(&["--config", text(&file)], &[]), ConfigError::Mapping { .. }));
}

#[test]
fn tls_files_without_the_files_that_they_need_are_refused() {
    for flags in [
        &["--tls-certificate", "c"][..],
        &["--tls-key", "k"],
        &["--tls-client-ca", "a"],
        &["--tls-client-crl", "l"],
    ] {
        assert!(matches!(refusal(flags, &[]), ConfigError::TlsIncomplete { .. }), "{flags:?}");
    }
    let directory = TempDir::new().unwrap();
    let mapping_only = "[[client-certificate]]\nname = \"dns:a\"\nscopes = [\"tokend:read\"]\n";
    let file = write(&directory, "tokend.toml", mapping_only, 0o644);
    assert!(matches!(refusal(&["--config", text(&file)], &[]), ConfigError::MappingWithoutCa));
}
