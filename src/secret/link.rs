//! The code of a link that signs a person in to the console: 128 random bits that stand in the fragment of its
//! address, which browsers send to no server. Called by the console and the action that makes links.

use std::fmt;

use rand::TryCryptoRng;
use secrecy::SecretString;

use super::random::RandomBytes;

/// The code of a link. Its Debug output reveals nothing.
pub struct LinkCode(RandomBytes<16>);

impl LinkCode {
    /// Generates a new code.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        RandomBytes::generate(randomness).map(Self)
    }

    /// Parses a code as people paste it: alone, or with the address that it stands in. `None` for anything but the
    /// 22 characters that [`Self::render`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        RandomBytes::parse(text.rsplit_once('#').map_or(text, |(_, fragment)| fragment)).map(Self)
    }

    /// Returns the text for the link.
    #[must_use]
    pub fn render(&self) -> SecretString {
        self.0.render()
    }

    /// Returns the hash by which the link's row is found.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.0.hash()
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
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_code_reads_back_alone_and_with_its_address_and_nothing_else_is_one() {
        let code = LinkCode(RandomBytes(Zeroizing::new([0xfe; 16])));
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
