//! The fast verifier: HMAC-SHA-256 (RFC 2104) of a secret. Its key's state is computed once, so that a
//! MAC in Verify costs three hash blocks and no allocation.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::Secret;

const MAC_DOMAIN: &[u8] = b"tokend/mac/1";

/// Identifies a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Creates an id from its 8 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the 8 bytes of the id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A fast verifier and the id of its key. Its Debug output shows only the key's id.
#[derive(Clone, Copy)]
pub struct Mac {
    /// The key that made it.
    pub key_id: KeyId,
    /// The HMAC.
    pub tag: [u8; 32],
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mac").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// One key, as the HMAC state used for it, which is erased when dropped. Its Debug output shows only
/// its id.
pub struct MacKey {
    id: KeyId,
    state: Hmac<Sha256>,
}

impl MacKey {
    /// Creates a key with its id.
    #[must_use]
    pub fn new(id: KeyId, key: &[u8; 32]) -> Self {
        Self { id, state: keyed(key) }
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Computes the MAC of a secret.
    #[must_use]
    pub fn mac(&self, secret: &Secret) -> Mac {
        const COVERED: usize = MAC_DOMAIN.len() + 48;
        let covered = secret.covered::<COVERED>(MAC_DOMAIN);
        let tag = self.state.clone().chain_update(covered.as_slice()).finalize().into_bytes().into();
        Mac { key_id: self.id, tag }
    }

    /// Returns whether a MAC of this key belongs to the secret; compares in constant time.
    #[must_use]
    pub fn check(&self, secret: &Secret, mac: &Mac) -> bool {
        self.mac(secret).tag.ct_eq(&mac.tag).into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MacKey").field(&self.id).finish()
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(key).expect("32 bytes are a key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{known_secret, secret};
    use zeroize::Zeroizing;

    fn key(byte: u8) -> MacKey {
        MacKey::new(KeyId::from_bytes([byte; 8]), &[byte; 32])
    }

    #[test]
    fn a_mac_matches_no_other_secret_id_or_key() {
        let (id, random) = ([5; 16], [6; 32]);
        let mac = key(1).mac(&secret(id, random));
        assert!(key(1).check(&secret(id, random), &mac));
        for other in [secret([4; 16], random), secret(id, [7; 32])] {
            assert!(!key(1).check(&other, &mac));
        }
        assert!(!key(2).check(&secret(id, random), &mac));
        for bit in 0..256 {
            let mut altered = mac;
            altered.tag[bit / 8] ^= 1 << (bit % 8);
            assert!(!key(1).check(&secret(id, random), &altered));
        }
    }

    #[test]
    fn a_mac_covers_domain_id_and_random_bits() {
        let covered: Zeroizing<[u8; 60]> = known_secret().covered(MAC_DOMAIN);
        let bytes = |from: u8, count: u8| (from..from + count).collect::<Vec<_>>();
        assert_eq!(covered.as_slice(), [&b"tokend/mac/1"[..], &bytes(0, 16), &bytes(100, 32)].concat());
    }

    #[test]
    fn debug_output_shows_only_ids() {
        let mac = key(0xab).mac(&known_secret());
        let shown = format!("{:?} {mac:?}", key(0xab));
        assert_eq!(shown, "MacKey(KeyId(abababababababab)) Mac { key_id: KeyId(abababababababab), .. }");
    }
}
