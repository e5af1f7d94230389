//! The code of a link that signs a person in to the console: 128 random bits that stand in the fragment of its
//! address, which browsers send to no server. Called by the console and the action that makes links.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryCryptoRng;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const CODE: usize = 16;

/// The code of a link. Its Debug output reveals nothing.
pub struct LinkCode(Zeroizing<[u8; CODE]>);

impl LinkCode {
    /// Generates a new code.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        let mut bytes = Zeroizing::new([0; CODE]);
        randomness.try_fill_bytes(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Parses a code as people paste it: alone, or with the address that it stands in. `None` for anything but the
    /// 22 characters that [`Self::render`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.rsplit_once('#').map_or(text, |(_, fragment)| fragment);
        let mut bytes = Zeroizing::new([0; CODE]);
        let length = URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()).ok()?;
        (length == CODE).then_some(Self(bytes))
    }

    /// Returns the text for the link.
    #[must_use]
    pub fn render(&self) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.0.as_slice()).into()
    }

    /// Returns the hash by which the link's row is found. It needs no salt: nobody guesses 128 random bits.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_slice()).into()
    }
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCode([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_code_reads_back_alone_and_with_its_address_and_nothing_else_is_one() {
        let code = LinkCode(Zeroizing::new([0xfe; CODE]));
        let text = code.render();
        let text = text.expose_secret();
        assert_eq!(text.len(), 22);
        let link = format!(" http://tokend.localhost:50080/link#{text}\n");
        for good in [text, &link] {
            assert_eq!(LinkCode::parse(good).unwrap().hash(), code.hash());
        }
        let (longer, second_spelling) = (format!("{text}A"), format!("{}h", &text[..21]));
        for bad in ["", "#", &text[1..], &longer, &second_spelling, "tokd_wrong"] {
            assert!(LinkCode::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{code:?}"), "LinkCode([redacted])");
    }
}
