//! The key of a person's session: 256 random bits that only the cookie of their browser has. What the session
//! needs besides is derived from it: how its row is found, its form tokens, and its request ids. Called by the
//! console; knows no cookies and no SQL.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryCryptoRng;
use secrecy::SecretString;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::RequestId;
use super::random::RandomBytes;

const FORM_LABEL: &[u8] = b"tokend/session/form/1";
const REQUEST_LABEL: &[u8] = b"tokend/session/request/1";
const NOTICE_LABEL: &[u8] = b"tokend/session/notice/1";

/// The key of a session. Its Debug output reveals nothing.
#[derive(Clone)]
pub struct SessionKey(RandomBytes<32>);

/// Identifies one form that a session was given, among all its forms. Not a secret: without the session's key
/// nothing follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormNonce([u8; 16]);

impl SessionKey {
    /// Generates a new key.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        RandomBytes::generate(randomness).map(Self)
    }

    /// Parses the text of a cookie; `None` for anything but 43 characters that [`Self::render`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        RandomBytes::parse(text).map(Self)
    }

    /// Returns the text for the cookie.
    #[must_use]
    pub fn render(&self) -> SecretString {
        self.0.render()
    }

    /// Returns the hash by which the session's row is found.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.0.hash()
    }

    /// Returns the token that each form of the session carries.
    #[must_use]
    pub fn form_token(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.derive(FORM_LABEL, &[]))
    }

    /// Returns whether a text is the session's form token; compares in constant time.
    #[must_use]
    pub fn accepts(&self, form_token: &str) -> bool {
        self.form_token().as_bytes().ct_eq(form_token.as_bytes()).into()
    }

    /// Returns the request id of a form: the same for each time it is sent, and known to nobody who has only
    /// the form.
    #[must_use]
    pub fn request_id(&self, nonce: &FormNonce) -> RequestId {
        let bytes = Zeroizing::new(self.derive(REQUEST_LABEL, &nonce.0));
        let (first, _) = bytes.split_at(16);
        RequestId::of_random(first.try_into().unwrap_or_default())
    }

    /// Signs what a page of the session may say of an act, so that a link from elsewhere cannot have it say so.
    #[must_use]
    pub fn sign_notice(&self, notice: &str) -> String {
        let tag = self.derive(NOTICE_LABEL, notice.as_bytes());
        let (first, _) = tag.split_at(16);
        URL_SAFE_NO_PAD.encode(first)
    }

    /// Returns whether a text is the signature of this notice; compares in constant time.
    #[must_use]
    pub fn accepts_notice(&self, notice: &str, signature: &str) -> bool {
        self.sign_notice(notice).as_bytes().ct_eq(signature.as_bytes()).into()
    }

    fn derive(&self, label: &[u8], of: &[u8]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.0.as_slice()).expect("a key of 32 bytes");
        mac.update(label);
        mac.update(of);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey([redacted])")
    }
}

impl FormNonce {
    /// Generates a new one.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        let mut bytes = [0; 16];
        randomness.try_fill_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Parses 22 characters as it is displayed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }
}

impl fmt::Display for FormNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn key(byte: u8) -> SessionKey {
        SessionKey(RandomBytes(Zeroizing::new([byte; 32])))
    }

    #[test]
    fn a_key_reads_back_from_its_cookie_and_nothing_else_is_one() {
        let text = key(7).render();
        let text = text.expose_secret();
        assert_eq!(text.len(), 43);
        assert_eq!(SessionKey::parse(text).unwrap().hash(), key(7).hash());
        let (longer, padded) = (format!("{text}A"), format!("{text}="));
        // The last character has two bits too many, which must be zero.
        let second_spelling = format!("{}d", &text[..42]);
        for bad in ["", &text[1..], &longer, &padded, &second_spelling, &format!("{} ", &text[..42])] {
            assert!(SessionKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_follows_from_a_key_follows_from_no_other_and_from_its_hash_neither() {
        let (one, other) = (key(1), key(2));
        assert!(one.accepts(&one.form_token()) && !one.accepts(&other.form_token()) && !one.accepts(""));
        assert_ne!(one.form_token(), URL_SAFE_NO_PAD.encode(one.hash()));
        let [first, second] = [FormNonce([1; 16]), FormNonce([2; 16])];
        let mac = |key: &SessionKey, nonce| key.request_id(nonce).mac("x");
        assert_eq!(mac(&one, &first), mac(&one, &first));
        assert_ne!(mac(&one, &first), mac(&one, &second));
        assert_ne!(mac(&one, &first), mac(&other, &first));
    }

    #[test]
    fn a_nonce_reads_back_and_debug_shows_no_key() {
        let nonce = FormNonce([0xab; 16]);
        assert_eq!(FormNonce::parse(&nonce.to_string()), Some(nonce));
        assert_eq!(FormNonce::parse("short"), None);
        assert_eq!(format!("{:?}", key(1)), "SessionKey([redacted])");
    }
}
