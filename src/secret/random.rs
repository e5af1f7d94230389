//! Random bytes that are a credential by themselves: their text, and the hash by which their row is found.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryCryptoRng;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Random bytes, erased when they are dropped. Has no Debug.
#[derive(Clone)]
pub(super) struct RandomBytes<const LENGTH: usize>(pub(super) Zeroizing<[u8; LENGTH]>);

impl<const LENGTH: usize> RandomBytes<LENGTH> {
    /// Generates new ones.
    ///
    /// # Errors
    /// Those of the random generator.
    pub(super) fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        randomness.try_fill_bytes(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Parses what [`Self::render`] gives; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        // One byte more would not fit, and is refused.
        let length = URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()).ok()?;
        (length == LENGTH).then_some(Self(bytes))
    }

    /// Returns their text.
    pub(super) fn render(&self) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.0.as_slice()).into()
    }

    /// Returns their hash. It needs no salt: nobody guesses 128 random bits.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_slice()).into()
    }
}
