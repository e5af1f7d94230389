//! A token's id: 128 bits, written as 22 base62 characters in all output.

use std::fmt;
use std::str::FromStr;

use rand::TryCryptoRng;
use uuid::Builder;

use super::base62;

/// Identifies a token. Not secret: it is part of the secret's text and of every log line about the
/// token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 16]);

/// The text is not 22 base62 characters of a number within 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 22 base62 characters")]
pub struct TokenIdError;

impl TokenId {
    /// The length of an id, in characters.
    pub const LENGTH: usize = 22;

    /// Generates a new id: a UUIDv7 (RFC 9562) of this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(unix_millis: u64, randomness: &mut R) -> Result<Self, R::Error> {
        let mut random = [0; 10];
        randomness.try_fill_bytes(&mut random)?;
        let uuid = Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid();
        Ok(Self(uuid.into_bytes()))
    }

    /// Creates an id from its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes of the id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Parses the 22 characters; any number within 128 bits is an id.
    ///
    /// # Errors
    /// [`TokenIdError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, TokenIdError> {
        let text = text.as_bytes().try_into().map_err(|_| TokenIdError)?;
        Self::from_text(text).ok_or(TokenIdError)
    }

    pub(super) fn from_text(text: &[u8; Self::LENGTH]) -> Option<Self> {
        base62::decode_u128(text).map(|number| Self(number.to_be_bytes()))
    }

    pub(super) fn to_text(self) -> [u8; Self::LENGTH] {
        base62::encode_u128(u128::from_be_bytes(self.0))
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        Self::parse(text)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text().iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn a_generated_id_is_a_uuid_of_version_7_that_sorts_by_its_time() {
        let mut randomness = StdRng::seed_from_u64(1);
        let mut at = |millis| TokenId::generate(millis, &mut randomness).unwrap();
        let (earlier, later) = (at(1_000), at(2_000));
        let uuid = uuid::Uuid::from_bytes(earlier.to_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_timestamp().unwrap().to_unix().0, 1);
        assert!(earlier < later && earlier.to_string() < later.to_string());
    }

    #[test]
    fn an_id_is_22_digits_within_128_bits() {
        for bad in ["", "0", &"0".repeat(21), &"0".repeat(23), &"z".repeat(22), " 000000000000000000000"] {
            assert_eq!(TokenId::parse(bad), Err(TokenIdError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_reads_back(bytes: [u8; 16]) {
            let id = TokenId::from_bytes(bytes);
            prop_assert_eq!(TokenId::parse(&id.to_string()), Ok(id));
        }
    }
}
