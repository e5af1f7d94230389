//! Tests of the keyring: a single accepted format, fixed tags, and results that distinguish four cases.

use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use secrecy::ExposeSecret as _;

use super::super::{Prefix, RequestId, TokenId};
use super::*;
use tokend_core::fixtures::{known_secret, secret};

fn entry(byte: u8) -> String {
    let mut key = [byte; KEY];
    key[0] = 0x11;
    STANDARD.encode(key)
}

fn ring(bytes: &[u8]) -> Keyring {
    let lines: Vec<_> = bytes.iter().map(|byte| entry(*byte)).collect();
    Keyring::parse(&lines.join("\n")).unwrap()
}

#[test]
fn the_verifier_matches_the_documentation() {
    // From an independent implementation (Python's hmac and hashlib), for the key 11 22 22 … 22.
    let ring = ring(&[0x22]);
    let mac = ring.mac(&known_secret());
    assert_eq!(hex::encode(mac.tag), "ee23879b4cb100341d922a0380e8cfef4ad572a8e5b53a1961bb540499fc34eb");
    assert_eq!(mac.key_id.to_string(), "0624ae6003719541");
    assert_eq!(hex::encode(ring.sign_page(b"payload")), "1fb13cdc9b7fa60fc8d4919bf71825c5");
}

#[test]
fn a_request_is_compared_with_the_key_that_signed_it() {
    // From an independent implementation, for the same key.
    let mac = ring(&[0x22]).sign_request(b"body");
    assert_eq!(hex::encode(mac.tag), "d3a21f756f32d205632c2462e26a599828de08c60e77036c19ef356d524a7a9f");
    assert!(ring(&[1, 0x22]).check_request(b"body", &mac));
    assert!(!ring(&[0x22]).check_request(b"bodies", &mac));
    assert!(!ring(&[1]).check_request(b"body", &mac));
}

#[test]
fn a_secret_can_be_derived_again_while_its_key_is_in_the_ring() {
    let request_id = RequestId::parse("0f1e2d3c-4b5a-4697-8899-aabbccddeeff").unwrap();
    let context = RequestContext {
        rpc: "CreateToken",
        organization_id: "acme",
        caller: "someone",
        token_id: TokenId::from_bytes([5; 16]),
        request_id: &request_id,
    };
    let (key_id, salt) = (ring(&[1]).primary(), RequestSalt([7; 32]));
    let derived = |keys: &[u8]| {
        let secret = ring(keys).derive_secret(key_id, salt, &context)?;
        Some(secret.render(&Prefix::default()).expose_secret().to_owned())
    };
    let first = derived(&[1]).unwrap();
    assert_eq!(derived(&[2, 1]), Some(first.clone()));
    assert_eq!(derived(&[2]), None);
    let secret = Secret::parse(&first, &Prefix::default()).unwrap();
    assert_eq!(secret.id(), context.token_id);
}

#[test]
fn a_match_returns_the_key_that_made_the_mac() {
    let mac = ring(&[1]).mac(&known_secret());
    assert_eq!(ring(&[1, 2]).check(&known_secret(), &mac), MacMatch::Primary);
    assert_eq!(ring(&[2, 1]).check(&known_secret(), &mac), MacMatch::Older);
    assert_eq!(ring(&[2]).check(&known_secret(), &mac), MacMatch::UnknownKey);
}

#[test]
fn a_mac_matches_no_other_secret_and_no_other_id() {
    let (id, random) = ([5; 16], [6; 32]);
    let mac = ring(&[1]).mac(&secret(id, random));
    for other in [secret([4; 16], random), secret(id, [7; 32])] {
        assert_eq!(ring(&[1]).check(&other, &mac), MacMatch::Mismatch);
    }
    for bit in 0..256 {
        let mut altered = mac;
        altered.tag[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ring(&[1]).check(&secret(id, random), &altered), MacMatch::Mismatch);
    }
}

#[test]
fn a_ring_is_read_in_order_with_comments_and_blank_lines() {
    let text = format!("# ours\r\n\n  {} # since March\n{}\n", entry(1), entry(2));
    let read = Keyring::parse(&text).unwrap();
    let expected: Vec<_> = [1, 2].map(|byte| ring(&[byte]).primary()).to_vec();
    assert_eq!(read.key_ids().collect::<Vec<_>>(), expected);
    assert_eq!(read.primary(), expected[0]);
    assert!(read.contains(expected[1]) && !read.contains(ring(&[3]).primary()));
}

#[test]
fn every_generated_entry_is_a_valid_ring() {
    let mut randomness = StdRng::seed_from_u64(1);
    let [first, second] = [(); 2].map(|()| {
        let entry = Keyring::generate_entry(&mut randomness).unwrap();
        Keyring::parse(entry.expose_secret()).unwrap().primary()
    });
    assert_ne!(first, second);
}

#[test]
fn an_invalid_ring_is_reported_by_line_and_never_by_content() {
    let short = STANDARD.encode([7; 31]);
    for (text, expected) in [
        (String::new(), KeyringError::Empty),
        ("# nothing\n".to_owned(), KeyringError::Empty),
        (format!("{}\nsecretish!", entry(1)), KeyringError::NotBase64(2)),
        (short.clone(), KeyringError::Length { line: 1, length: 31 }),
        (format!("{0}\n\n{0}", entry(1)), KeyringError::Duplicate(3)),
    ] {
        let error = Keyring::parse(&text).unwrap_err();
        assert_eq!(error, expected);
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("secretish") && !shown.contains(&short));
        }
    }
}

#[test]
fn debug_output_shows_only_ids() {
    let ring = ring(&[1]);
    let mac = ring.mac(&known_secret());
    let shown = format!("{ring:?} {mac:?}");
    assert!(shown.contains(&ring.primary().to_string()));
    assert!(!shown.contains(&format!("{:?}", mac.tag)) && !shown.contains(&entry(1)));
}

#[test]
fn any_key_of_the_ring_verifies_a_page() {
    let tag = ring(&[1]).sign_page(b"page");
    assert!(ring(&[2, 1]).verify_page(b"page", &tag));
    assert!(!ring(&[1]).verify_page(b"pages", &tag));
    assert!(!ring(&[2]).verify_page(b"page", &tag));
}

/// A line of a ring: a key, a repeated key, base64 of any length, and many invalid ones.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=",
        1 => Just(entry(1)),
        2 => vec(any::<u8>(), 0..70).prop_map(|bytes| STANDARD.encode(bytes)),
        1 => "[A-Za-z0-9+/]{0,90}={0,3}",
        1 => "\\PC{0,60}",
        1 => "[ \t]{0,3}#\\PC{0,20}\r?",
    ]
}

/// Returns whether any eight consecutive characters of the text are shown.
fn repeats(shown: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    text.windows(8).any(|part| shown.contains(&String::from_iter(part)))
}

proptest! {
    #[test]
    fn parsing_a_ring_never_panics_and_errors_never_repeat_it(lines in vec(line(), 0..6)) {
        let text = lines.join("\n");
        if let Err(error) = Keyring::parse(&text) {
            let shown = format!("{error} {error:?}");
            prop_assert!(!repeats(&shown, &text), "{}", shown);
        }
    }

    #[test]
    fn parsing_any_text_as_a_ring_never_panics(text: String) {
        let _ = Keyring::parse(&text);
    }
}
