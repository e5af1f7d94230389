//! Parsers without a server: secrets, page tokens and positions, the configuration, client certificates.

use std::fs;
use std::sync::OnceLock;

use clap::Parser;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokend::changefeed::hub::WatchPosition;
use tokend::clock;
use tokend::config::{Account, Environment, ServeFlags};
use tokend::domain::counted_users::CountedUsers;
use tokend::domain::page::Position;
use tokend::domain::{CertificateMapping, CertificateMappings, OrganizationId, ReservedScope, SubjectName};
use tokend::secret::{Keyring, Prefix, Secret, TokenId};
use tokend::transport::tls::ClientCertificate;
use zeroize::Zeroizing;

fn keyring() -> &'static Keyring {
    static KEYRING: OnceLock<Keyring> = OnceLock::new();
    KEYRING.get_or_init(|| Keyring::parse(&key()).expect("a keyring"))
}

fn key() -> String {
    let entry = Keyring::generate_entry(&mut clock::randomness()).expect("randomness");
    entry.expose_secret().to_owned()
}

/// Checks that each secret has exactly one text form.
pub(crate) fn secret(data: &[u8]) {
    let prefix = Prefix::default();
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(secret) = Secret::parse(text, &prefix)
    {
        assert_eq!(secret.render(&prefix).expose_secret(), text);
    }
    // The fuzzer cannot find these because of the checksum: a valid secret, and one with a changed
    // character.
    let Some((bytes, [place, change, ..])) = data.split_first_chunk::<48>() else { return };
    let (id, random) = bytes.split_first_chunk::<16>().expect("48 bytes");
    let random = Zeroizing::new(random.try_into().expect("32 bytes"));
    let secret = Secret::derived(TokenId::from_bytes(*id), random);
    let text = secret.render(&prefix).expose_secret().to_owned();
    let parsed = Secret::parse(&text, &prefix).expect("its own spelling");
    assert_eq!(parsed.id(), secret.id());
    let mut altered = text.clone().into_bytes();
    let place = usize::from(*place) % altered.len();
    altered[place] = *change;
    if let Ok(altered) = String::from_utf8(altered)
        && altered != text
    {
        assert!(Secret::parse(&altered, &prefix).is_err(), "one character off");
    }
}

/// Checks that only page tokens and positions from the server are accepted, with exactly the same
/// filters.
pub(crate) fn page(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(Position::parse_page_token(text, b"", keyring()).is_err());
        assert!(CountedUsers::parse_page_token(text, b"", keyring()).is_err());
        assert!(WatchPosition::parse(text, None, keyring()).is_err());
    }
    let Some((id, rest)) = data.split_first_chunk::<16>() else { return };
    let Some((micros, filters)) = rest.split_first_chunk::<8>() else { return };
    let nanos = i128::from(i64::from_be_bytes(*micros) / 64) * 1_000;
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else { return };
    let position = Position { time: (micros[0] != 1).then_some(time), id: TokenId::from_bytes(*id) };
    let token = position.page_token(filters, keyring());
    assert_eq!(Position::parse_page_token(&token, filters, keyring()), Ok(position));
    let others = [filters, b"x"].concat();
    assert!(Position::parse_page_token(&token, &others, keyring()).is_err());
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: ServeFlags,
}

/// Checks that a configuration file is accepted or refused, and that an error never quotes a
/// possible password.
pub(crate) fn config(data: &[u8]) {
    static PLACE: OnceLock<(TempDir, String)> = OnceLock::new();
    let (place, key) = PLACE.get_or_init(|| (TempDir::new().expect("a directory"), key()));
    let path = place.path().join("tokend.toml");
    fs::write(&path, data).expect("a file");
    let path = path.to_str().expect("a path in UTF-8");
    let line = Line::try_parse_from(["serve", "--config", path]).expect("flags");
    let environment = Environment::of_pairs(&[("TOKEND_KEYS", key), ("HOME", "/nowhere")], Account::Ordinary);
    if let Err(error) = line.flags.resolve(&environment) {
        let mut told = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told.push_str(&error.to_string());
            source = error.source();
        }
        assert!(!told.contains("canary"), "{told}");
    }
}

/// Checks that a certificate's names are parsed or refused, and that only a mapped name is accepted.
pub(crate) fn certificate(data: &[u8]) {
    let Some(certificate) = ClientCertificate::parse(data) else { return };
    let mapping = CertificateMapping {
        name: SubjectName::dns("admin.example.org"),
        scopes: [ReservedScope::Root].into_iter().collect(),
        organization_id: OrganizationId::default_organization(),
    };
    let mappings = CertificateMappings::new(vec![mapping]).expect("one mapping");
    let now = OffsetDateTime::UNIX_EPOCH;
    if mappings.caller(&certificate.names, certificate.not_after, now).is_ok() {
        assert!(certificate.names.iter().any(|name| name.as_str() == "dns:admin.example.org"));
        assert!(certificate.not_after >= now);
    }
}
