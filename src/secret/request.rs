//! Secrets that can be returned twice although none is stored: with a request id, a secret's bits are
//! derived (HKDF-SHA-256, RFC 5869) from a subkey, a salt that is kept for a day, and the id, which is
//! stored nowhere. Called by creation and rotation. docs/design/repeated-requests.md explains why that is
//! safe.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryCryptoRng;
use sha2::Sha256;
use uuid::{Uuid, Variant};
use zeroize::Zeroizing;

use super::TokenId;

const LABEL: &[u8] = b"tokend/request-secret/1";
const ID_LABEL: &[u8] = b"tokend/request-id/1";

/// Identifies the retries of one request: a UUID of version 4 (RFC 9562, AIP-155). As sensitive as a
/// secret: its Debug output reveals nothing.
#[derive(Clone)]
pub struct RequestId(Zeroizing<[u8; 16]>);

/// The text is not a UUID of version 4 in its hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of version 4")]
pub struct RequestIdError;

impl RequestId {
    /// Parses the hyphenated form; the case of its digits does not matter.
    ///
    /// # Errors
    /// [`RequestIdError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, RequestIdError> {
        const HYPHENATED: usize = 36;
        let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == HYPHENATED).ok_or(RequestIdError)?;
        if uuid.get_version_num() != 4 || uuid.get_variant() != Variant::RFC4122 {
            return Err(RequestIdError);
        }
        Ok(Self(Zeroizing::new(uuid.into_bytes())))
    }

    /// Makes one of 16 bytes that nobody can guess.
    pub(super) fn of_random(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()))
    }

    /// Returns the MAC by which a caller's request is found again. Needs no key, so that replicas with
    /// different rings agree on it and a lost key is noticed.
    #[must_use]
    pub fn mac(&self, caller: &str) -> [u8; 32] {
        let mut mac = finder();
        for part in [caller.as_bytes(), self.0.as_slice()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn finder() -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(ID_LABEL).expect("a label is a key")
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestId([redacted])")
    }
}

/// The random part of a derived secret: 32 bytes, deleted after a day, different for each secret. Its
/// Debug output reveals nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestSalt(pub [u8; 32]);

impl RequestSalt {
    /// Generates a new salt.
    ///
    /// # Errors
    /// Those of the random generator.
    pub fn generate<R: TryCryptoRng>(randomness: &mut R) -> Result<Self, R::Error> {
        let mut bytes = [0; 32];
        randomness.try_fill_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for RequestSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestSalt([redacted])")
    }
}

/// What a derived secret depends on, besides key and salt.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The RPC's name.
    pub rpc: &'a str,
    /// The token's organization.
    pub organization_id: &'a str,
    /// The caller's principal.
    pub caller: &'a str,
    /// The token whose secret is derived.
    pub token_id: TokenId,
    /// The request's id.
    pub request_id: &'a RequestId,
}

impl RequestContext<'_> {
    /// Derives 256 bits for a secret.
    pub(super) fn derive(&self, subkey: &[u8; 32], salt: RequestSalt) -> Zeroizing<[u8; 32]> {
        let token_id = self.token_id.to_bytes();
        let mut info = Zeroizing::new(Vec::with_capacity(512));
        for part in [
            LABEL,
            self.rpc.as_bytes(),
            self.organization_id.as_bytes(),
            self.caller.as_bytes(),
            &token_id,
            self.request_id.0.as_slice(),
        ] {
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part);
        }
        let mut bits = Zeroizing::new([0; 32]);
        #[expect(clippy::expect_used, reason = "HKDF-SHA-256 gives up to 8160 bytes")]
        Hkdf::<Sha256>::new(Some(&salt.0), subkey)
            .expand(&info, bits.as_mut_slice())
            .expect("32 bytes are not too many");
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0f1e2d3c-4b5a-4697-8899-aabbccddeeff";

    #[test]
    fn only_a_hyphenated_uuid_of_version_4_is_a_request_id() {
        for good in [TEXT, &TEXT.to_uppercase()] {
            assert!(RequestId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "x",
            &TEXT.replace('-', ""),
            &format!("{{{TEXT}}}"),
            &format!("urn:uuid:{TEXT}"),
            &format!("{TEXT} "),
            &TEXT.replace("-4697", "-1697"),
            &TEXT.replace("-8899", "-c899"),
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(RequestId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_derivation_matches_the_documentation_and_every_part_counts() {
        // From an independent implementation (Python's hmac and hashlib).
        let request_id = RequestId::parse(TEXT).unwrap();
        let subkey = hkdf_subkey();
        let salt = RequestSalt(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let token_id = TokenId::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let known = RequestContext {
            rpc: "CreateToken",
            organization_id: "acme",
            caller: "someone",
            token_id,
            request_id: &request_id,
        };
        let bits = known.derive(&subkey, salt);
        assert_eq!(
            hex::encode(bits.as_slice()),
            "0a2021f254a0e3280ecbd5070306d2047aecd4dc48a064c5880c75184021b098"
        );
        let mac = request_id.mac("someone");
        assert_eq!(hex::encode(mac), "13f7a1998dd4bb19ca8904bede554e5c409654a70d2c75ab32b9a379b7a1c3db");
        assert_ne!(request_id.mac("someone else"), mac);

        let other = RequestId::parse(&TEXT.replace("0f", "1f")).unwrap();
        for changed in [
            RequestContext { rpc: "RotateToken", ..known },
            RequestContext { organization_id: "acm", caller: "esomeone", ..known },
            RequestContext { caller: "someon", ..known },
            RequestContext { token_id: TokenId::from_bytes([9; 16]), ..known },
            RequestContext { request_id: &other, ..known },
        ] {
            assert_ne!(changed.derive(&subkey, salt), bits, "{changed:?}");
        }
        assert_ne!(known.derive(&[1; 32], salt), bits);
        assert_ne!(known.derive(&subkey, RequestSalt([1; 32])), bits);
    }

    /// The subkey of the key 11 22 22 … 22.
    fn hkdf_subkey() -> [u8; 32] {
        let mut key = [0x22; 32];
        key[0] = 0x11;
        let mut subkey = [0; 32];
        Hkdf::<Sha256>::new(None, &key).expand(b"tokend/subkey/request", &mut subkey).unwrap();
        subkey
    }

    #[test]
    fn debug_output_shows_nothing() {
        let request_id = RequestId::parse(TEXT).unwrap();
        let shown = format!("{request_id:?} {:?}", RequestSalt([0xab; 32]));
        assert_eq!(shown, "RequestId([redacted]) RequestSalt([redacted])");
    }
}
