//! The text of a secret: `<prefix>_<id><random><checksum>`, like GitHub's tokens: one word for a double
//! click, a prefix and a fixed length for scanners, a checksum against typos and false positives.
//! Parsing is exact and allocates nothing; every Verify starts here.

use std::fmt;

use rand::TryCryptoRng;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::base62;
use super::id::TokenId;

/// The prefix of every secret of an installation: 2 to 16 characters, `[a-z][a-z0-9]{1,15}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Box<str>);

/// The text is not a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is a lower-case letter followed by 1 to 15 lower-case letters or digits")]
pub struct PrefixError;

impl Prefix {
    /// Accepts a text of the grammar.
    ///
    /// # Errors
    /// [`PrefixError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let well_formed = (2..=16).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if well_formed { Ok(Self(text.into())) } else { Err(PrefixError) }
    }

    /// Returns the text, without the underscore that follows it in a secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("tokd".into())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It does not start with the prefix and an underscore.
    #[error("the text does not begin with this installation's prefix")]
    Prefix,
    /// It is longer or shorter than a secret.
    #[error("the text does not have the length of a secret")]
    Length,
    /// A character is not a base62 digit, or the number is too large.
    #[error("the text is not base62 of the right size")]
    Digits,
    /// The checksum does not match.
    #[error("the checksum does not match the text")]
    Checksum,
}

const RANDOM_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;
const BODY: usize = TokenId::LENGTH + RANDOM_LENGTH + CHECKSUM_LENGTH;

/// A secret: the id of its token and 256 random bits. Its Debug output shows only the id.
pub struct Secret {
    id: TokenId,
    random: Zeroizing<[u8; 32]>,
}

impl Secret {
    /// The length of a secret after its prefix and underscore, in bytes.
    pub const BODY: usize = BODY;

    /// Generates a new secret for the token with this id.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(id: TokenId, randomness: &mut R) -> Result<Self, R::Error> {
        let mut random = Zeroizing::new([0; 32]);
        randomness.try_fill_bytes(random.as_mut_slice())?;
        Ok(Self { id, random })
    }

    /// Creates the secret of a token from bits derived only for it.
    #[must_use]
    pub fn derived(id: TokenId, random: Zeroizing<[u8; 32]>) -> Self {
        Self { id, random }
    }

    /// Parses a secret of the installation with this prefix. Exact: no trimming, no case folding, only
    /// one spelling.
    ///
    /// # Errors
    /// [`FormatError`]: the first error, from prefix to checksum.
    pub fn parse(text: &str, prefix: &Prefix) -> Result<Self, FormatError> {
        let body = text
            .strip_prefix(prefix.as_str())
            .and_then(|rest| rest.strip_prefix('_'))
            .ok_or(FormatError::Prefix)?;
        let body: &[u8; BODY] = body.as_bytes().try_into().map_err(|_| FormatError::Length)?;
        let (id, rest) = body.split_first_chunk().ok_or(FormatError::Length)?;
        let (random, rest) = rest.split_first_chunk().ok_or(FormatError::Length)?;
        let checksum = rest.try_into().map_err(|_| FormatError::Length)?;

        let id = TokenId::from_text(id).ok_or(FormatError::Digits)?;
        let random = base62::decode_256(random).ok_or(FormatError::Digits)?;
        let checksum = base62::decode_u32(checksum).ok_or(FormatError::Digits)?;
        let covered = &text.as_bytes()[..text.len() - CHECKSUM_LENGTH];
        if crc32fast::hash(covered) != checksum {
            return Err(FormatError::Checksum);
        }
        Ok(Self { id, random })
    }

    /// Formats the secret's text.
    #[must_use]
    pub fn render(&self, prefix: &Prefix) -> SecretString {
        let mut random = Zeroizing::new([0; RANDOM_LENGTH]);
        base62::encode_256(&self.random, &mut random);
        // Allocated with the final capacity, so that no reallocation leaves a part of a secret behind.
        let mut text = String::with_capacity(prefix.as_str().len() + 1 + BODY);
        text.push_str(prefix.as_str());
        text.push('_');
        text.extend(self.id.to_text().map(char::from));
        text.extend(random.iter().copied().map(char::from));
        let checksum = crc32fast::hash(text.as_bytes());
        text.extend(base62::encode_u32(checksum).map(char::from));
        SecretString::from(text)
    }

    /// Returns the id of the secret's token.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the bytes that a verifier covers: its domain, the id and the random bits. Only for
    /// verifiers.
    #[must_use]
    pub fn covered<const N: usize>(&self, domain: &[u8]) -> Zeroizing<[u8; N]> {
        debug_assert_eq!(N, domain.len() + 48, "the array has room for exactly what is covered");
        let mut bytes = Zeroizing::new([0; N]);
        let (domain_part, rest) = bytes.split_at_mut(domain.len());
        domain_part.copy_from_slice(domain);
        rest[..16].copy_from_slice(&self.id.to_bytes());
        rest[16..].copy_from_slice(self.random.as_slice());
        bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).field("random", &"[redacted]").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{known_secret, secret};
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    /// The result of an independent implementation (Python's `int`, `zlib.crc32`) for [`known_secret`].
    const KNOWN: &str = "tokd_000SYW7RiJxkEgOGusQGwpNo287qEH4uQv9vBo5cxQTXAw02KFtzjuPbCrH1FrBEB1I0HY5";

    fn parse(text: &str) -> Result<Secret, FormatError> {
        Secret::parse(text, &Prefix::default())
    }

    #[test]
    fn the_format_matches_the_documentation() {
        assert_eq!(known_secret().render(&Prefix::default()).expose_secret(), KNOWN);
        assert_eq!(*parse(KNOWN).unwrap().random, *known_secret().random);
    }

    #[test]
    fn surrounding_text_and_other_prefixes_are_refused() {
        for bad in [
            format!(" {KNOWN}"),
            format!("{KNOWN}\n"),
            format!("{KNOWN}0"),
            KNOWN.to_uppercase(),
            KNOWN.replace("tokd_", "tokd"),
            KNOWN.replace("tokd_", "tokd__"),
            String::new(),
            "tokd_".to_owned(),
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        let other = Prefix::parse("acme").unwrap();
        assert_eq!(Secret::parse(KNOWN, &other).unwrap_err(), FormatError::Prefix);
        assert!(parse(known_secret().render(&other).expose_secret()).is_err());
    }

    #[test]
    fn a_number_too_large_is_malformed_even_with_a_matching_checksum() {
        let with_checksum = |body: String| {
            let checksum = base62::encode_u32(crc32fast::hash(body.as_bytes()));
            body + std::str::from_utf8(&checksum).unwrap()
        };
        let (id, random) = (&KNOWN[5..27], &KNOWN[27..70]);
        assert!(parse(&with_checksum(format!("tokd_{id}{random}"))).is_ok());
        let large = with_checksum(format!("tokd_{}{random}", "z".repeat(22)));
        assert_eq!(parse(&large).unwrap_err(), FormatError::Digits);
        let large = with_checksum(format!("tokd_{id}{}", "z".repeat(43)));
        assert_eq!(parse(&large).unwrap_err(), FormatError::Digits);
        let large = format!("{}zzzzzz", &KNOWN[..70]);
        assert_eq!(parse(&large).unwrap_err(), FormatError::Digits);
    }

    #[test]
    fn the_grammar_of_prefixes_is_enforced() {
        for good in ["ab", "a1", "abcdefghijklmnop"] {
            assert!(Prefix::parse(good).is_ok());
        }
        for bad in ["", "a", "1a", "aB", "a_b", "abcdefghijklmnopq", "é1"] {
            assert!(Prefix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_output_shows_only_the_id() {
        let shown = format!("{:?}", known_secret());
        assert!(shown.contains(&known_secret().id().to_string()));
        assert!(!shown.contains("100") && shown.contains("[redacted]"));
    }

    proptest! {
        #[test]
        fn a_rendered_secret_parses_back(id: [u8; 16], random: [u8; 32]) {
            let text = secret(id, random).render(&Prefix::default());
            let parsed = parse(text.expose_secret()).unwrap();
            prop_assert_eq!((parsed.id.to_bytes(), *parsed.random), (id, random));
        }

        #[test]
        fn changing_any_character_makes_a_secret_malformed(
            id: [u8; 16], random: [u8; 32], at in 0_usize..76, to: char,
        ) {
            let text = secret(id, random).render(&Prefix::default());
            let text: Vec<char> = text.expose_secret().chars().collect();
            let other_case = if text[at].is_ascii_lowercase() {
                text[at].to_ascii_uppercase()
            } else {
                text[at].to_ascii_lowercase()
            };
            for to in [to, other_case, '0', 'z'] {
                let mut changed = text.clone();
                changed[at] = to;
                prop_assert_eq!(parse(&String::from_iter(&changed)).is_ok(), to == text[at]);
                changed.insert(at, to);
                prop_assert!(parse(&String::from_iter(&changed)).is_err());
            }
            let mut shortened = text;
            shortened.remove(at);
            prop_assert!(parse(&String::from_iter(&shortened)).is_err());
        }

        #[test]
        fn parsing_never_panics_and_accepts_only_one_spelling(text in "(tokd_)?\\PC{0,90}") {
            if let Ok(secret) = parse(&text) {
                let again = secret.render(&Prefix::default());
                prop_assert_eq!(again.expose_secret(), &text);
            }
        }

        #[test]
        fn parsing_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn well_formed_texts_render_to_the_same_text(body in "[0-9A-Za-z]{65}") {
            let body = format!("tokd_{body}");
            let checksum = base62::encode_u32(crc32fast::hash(body.as_bytes()));
            let text = body + std::str::from_utf8(&checksum).unwrap();
            if let Ok(secret) = parse(&text) {
                let again = secret.render(&Prefix::default());
                prop_assert_eq!(again.expose_secret(), &text);
            }
        }
    }
}
