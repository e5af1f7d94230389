//! What binds the code of a login to the program that asked for it: a random verifier that the program alone has, and its
//! hash (RFC 7636, S256). Called by the command line, the console, and where a code is exchanged.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryCryptoRng;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The random number of a login. Its Debug output reveals nothing.
pub struct CodeVerifier(SecretString);

/// The hash of a verifier. It reveals nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeChallenge([u8; 32]);

impl CodeVerifier {
    /// Generates a new verifier: 256 random bits.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        randomness.try_fill_bytes(bytes.as_mut_slice())?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes.as_slice()).into()))
    }

    /// Accepts 43 to 128 unreserved characters, and nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        ((43..=128).contains(&text.len()) && text.bytes().all(unreserved)).then(|| Self(text.into()))
    }

    /// Returns the text to send with the code.
    #[must_use]
    pub fn text(&self) -> &SecretString {
        &self.0
    }

    /// Returns its hash.
    #[must_use]
    pub fn challenge(&self) -> CodeChallenge {
        CodeChallenge(Sha256::digest(self.0.expose_secret()).into())
    }
}

impl fmt::Debug for CodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeVerifier([redacted])")
    }
}

impl CodeChallenge {
    /// Parses the 43 characters that [`Self::render`] gives, and no other spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }

    /// Returns the challenge with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the text for the page's address.
    #[must_use]
    pub fn render(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Returns whether it is the hash of this verifier, in constant time.
    #[must_use]
    pub fn is_of(&self, verifier: &CodeVerifier) -> bool {
        self.0.ct_eq(&verifier.challenge().0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_the_one_of_rfc_7636_appendix_b() {
        let verifier = CodeVerifier::parse("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        let challenge = verifier.challenge();
        assert_eq!(challenge.render(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(CodeChallenge::parse(&challenge.render()), Some(challenge));
        assert!(challenge.is_of(&verifier));
        assert!(!challenge.is_of(&CodeVerifier::parse(&"A".repeat(43)).unwrap()));
        assert_eq!(format!("{verifier:?}"), "CodeVerifier([redacted])");
    }

    #[test]
    fn a_verifier_and_a_challenge_have_one_form() {
        let text = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        for bad in ["", &text[1..], &format!("{text}A"), &format!("{text}="), &format!("{}N", &text[..42])] {
            assert!(CodeChallenge::parse(bad).is_none(), "{bad}");
        }
        for (bad, good) in [("A".repeat(42), "A".repeat(43)), ("A".repeat(129), "~.-_".repeat(32))] {
            assert!(CodeVerifier::parse(&bad).is_none() && CodeVerifier::parse(&good).is_some());
        }
        for bad in ["+", "/", "=", " ", "ü", "%"] {
            assert!(CodeVerifier::parse(&(bad.to_owned() + &"A".repeat(43))).is_none(), "{bad}");
        }
    }
}
