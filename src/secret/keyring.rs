//! The keyring: the keys of the fast verifier and of all other signatures, each use through its own subkey
//! (HKDF, RFC 5869). The first key is primary; older ones still verify. A key's id is the first 8 bytes of
//! HMAC-SHA-256(key, "tokend key id"), so equal ids mean equal keys. Keyed states are computed once.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryCryptoRng;
use secrecy::SecretString;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{KeyId, Mac, MacKey, RequestContext, RequestSalt, Secret};

const KEY: usize = 32;
const KEY_ID_INPUT: &[u8] = b"tokend key id";

/// The result of comparing a secret with a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacMatch {
    /// It matches, under the primary key.
    Primary,
    /// It matches, under an older key.
    Older,
    /// It does not match; final.
    Mismatch,
    /// The key that made the MAC is not in the ring: nothing is known.
    UnknownKey,
}

/// Why a text is not a keyring. Names lines, never their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// It contains no key.
    #[error("it holds no key; create one with `tokend keygen`")]
    Empty,
    /// A line is not base64.
    #[error("line {0} is not base64 of 32 bytes; create a key with `tokend keygen`")]
    NotBase64(usize),
    /// A key is shorter or longer than 32 bytes.
    #[error("line {line} is a key of {length} bytes instead of 32; create one with `tokend keygen`")]
    Length {
        /// The line, from 1.
        line: usize,
        /// The key's length, in bytes.
        length: usize,
    },
    /// A key occurs twice.
    #[error("line {0} repeats an earlier key")]
    Duplicate(usize),
}

/// One key, as the states used for its purposes. HMAC's states are erased when dropped.
struct Key {
    mac: MacKey,
    page: Hmac<Sha256>,
    request: Zeroizing<[u8; KEY]>,
    request_body: Hmac<Sha256>,
    seal: Hmac<Sha256>,
}

/// The keys of an installation, the primary one first. Its Debug output shows only their ids.
pub struct Keyring {
    primary: Key,
    older: Vec<Key>,
}

impl Keyring {
    /// Parses a ring: one key per line, base64 of 32 bytes, the primary first; `#` starts a comment.
    ///
    /// # Errors
    /// [`KeyringError`]: for the first invalid line, or if there is no key.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
            if entry.is_empty() {
                continue;
            }
            let key = Key::parse(entry, index + 1)?;
            if keys.iter().any(|earlier| earlier.id() == key.id()) {
                return Err(KeyringError::Duplicate(index + 1));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let primary = keys.next().ok_or(KeyringError::Empty)?;
        Ok(Self { primary, older: keys.collect() })
    }

    /// Generates a new key as a line of a ring.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate_entry<R: TryCryptoRng>(randomness: &mut R) -> Result<SecretString, R::Error> {
        let mut key = Zeroizing::new([0; KEY]);
        randomness.try_fill_bytes(key.as_mut_slice())?;
        Ok(SecretString::from(STANDARD.encode(key.as_slice())))
    }

    /// Returns the id of the primary key.
    #[must_use]
    pub fn primary(&self) -> KeyId {
        self.primary.id()
    }

    /// Returns whether a key is in the ring.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.keys().any(|key| key.id() == id)
    }

    /// Iterates over the ids of the ring's keys in their order.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys().map(Key::id)
    }

    /// Computes the MAC of a secret with the primary key.
    #[must_use]
    pub fn mac(&self, secret: &Secret) -> Mac {
        self.primary.mac.mac(secret)
    }

    /// Compares a secret with a MAC, in constant time.
    #[must_use]
    pub fn check(&self, secret: &Secret, mac: &Mac) -> MacMatch {
        let Some(key) = self.keys().find(|key| key.id() == mac.key_id) else {
            return MacMatch::UnknownKey;
        };
        match key.mac.check(secret, mac) {
            false => MacMatch::Mismatch,
            true if key.id() == self.primary.id() => MacMatch::Primary,
            true => MacMatch::Older,
        }
    }

    /// Seals the bytes that a seal covers, with the primary key.
    #[must_use]
    pub fn sign_seal(&self, covered: &[u8]) -> Mac {
        Mac { key_id: self.primary.id(), tag: self.primary.seal_tag(covered) }
    }

    /// Returns whether a seal covers these bytes; compares in constant time. `None` when its key is not
    /// in the ring.
    #[must_use]
    pub fn check_seal(&self, covered: &[u8], seal: &Mac) -> Option<bool> {
        let key = self.keys().find(|key| key.id() == seal.key_id)?;
        Some(key.seal_tag(covered).ct_eq(&seal.tag).into())
    }

    /// Signs the payload of a page token, with the primary key.
    #[must_use]
    pub fn sign_page(&self, payload: &[u8]) -> [u8; 16] {
        self.primary.page_tag(payload)
    }

    /// Returns whether any key of the ring made this tag for the payload; compares in constant time.
    #[must_use]
    pub fn verify_page(&self, payload: &[u8], tag: &[u8; 16]) -> bool {
        self.keys().any(|key| key.page_tag(payload).ct_eq(tag).into())
    }

    /// Derives the secret of a request's token from a key of the ring; `None`: the ring lacks the key.
    #[must_use]
    pub fn derive_secret(
        &self,
        key_id: KeyId,
        salt: RequestSalt,
        context: &RequestContext<'_>,
    ) -> Option<Secret> {
        let key = self.keys().find(|key| key.id() == key_id)?;
        Some(Secret::derived(context.token_id, context.derive(&key.request, salt)))
    }

    /// Computes the MAC of a request's fields with the primary key.
    #[must_use]
    pub fn sign_request(&self, body: &[u8]) -> Mac {
        Mac { key_id: self.primary.id(), tag: self.primary.request_tag(body) }
    }

    /// Returns whether a request had these fields; compares in constant time. `false` when the ring
    /// lacks the key.
    #[must_use]
    pub fn check_request(&self, body: &[u8], mac: &Mac) -> bool {
        let key = self.keys().find(|key| key.id() == mac.key_id);
        key.is_some_and(|key| key.request_tag(body).ct_eq(&mac.tag).into())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.primary).chain(&self.older)
    }
}

/// The current keyring. Code that needs two of its methods for one purpose calls [`Self::get`] once: it
/// may be replaced in between.
#[derive(Debug)]
pub struct CurrentKeyring(ArcSwap<Keyring>);

impl CurrentKeyring {
    /// Starts with this keyring.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self(ArcSwap::new(keyring))
    }

    /// Returns the keyring, to keep as long as needed.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        self.0.load_full()
    }

    /// Returns the keyring for a moment: cheaper, but must not be kept across an await.
    pub fn peek(&self) -> impl Deref<Target = Arc<Keyring>> {
        self.0.load()
    }

    /// Replaces the keyring.
    pub fn replace(&self, keyring: Keyring) {
        self.0.store(Arc::new(keyring));
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.key_ids()).finish()
    }
}

impl Key {
    fn parse(entry: &str, line: usize) -> Result<Self, KeyringError> {
        // Decoded in place: bytes decoded before an invalid character are erased too.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(entry.len())]);
        let length = STANDARD.decode_slice(entry, &mut bytes).map_err(|_| KeyringError::NotBase64(line))?;
        bytes.truncate(length);
        let key: &[u8; KEY] =
            bytes.as_slice().try_into().map_err(|_| KeyringError::Length { line, length })?;
        let id = hmac(key).chain_update(KEY_ID_INPUT).finalize().into_bytes();
        let mut first = [0; 8];
        first.copy_from_slice(&id[..8]);
        Ok(Self {
            mac: MacKey::new(KeyId::from_bytes(first), &subkey(key, b"tokend/subkey/mac")),
            page: hmac(&subkey(key, b"tokend/subkey/page")),
            request: subkey(key, b"tokend/subkey/request"),
            request_body: hmac(&subkey(key, b"tokend/subkey/request-body")),
            seal: hmac(&subkey(key, b"tokend/subkey/seal")),
        })
    }

    fn id(&self) -> KeyId {
        self.mac.id()
    }

    fn seal_tag(&self, covered: &[u8]) -> [u8; 32] {
        self.seal.clone().chain_update(covered).finalize().into_bytes().into()
    }

    fn request_tag(&self, body: &[u8]) -> [u8; 32] {
        self.request_body.clone().chain_update(body).finalize().into_bytes().into()
    }

    fn page_tag(&self, payload: &[u8]) -> [u8; 16] {
        let tag = self.page.clone().chain_update(payload).finalize().into_bytes();
        let mut first = [0; 16];
        first.copy_from_slice(&tag[..16]);
        first
    }
}

fn subkey(key: &[u8; KEY], label: &[u8]) -> Zeroizing<[u8; KEY]> {
    let mut subkey = Zeroizing::new([0; KEY]);
    #[expect(clippy::expect_used, reason = "HKDF-SHA-256 gives up to 8160 bytes")]
    Hkdf::<Sha256>::new(None, key).expand(label, subkey.as_mut_slice()).expect("32 bytes are not too many");
    subkey
}

fn hmac(key: &[u8; KEY]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(key).expect("32 bytes are a key")
}

#[cfg(test)]
mod tests;
