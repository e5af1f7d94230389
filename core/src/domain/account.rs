//! The account that work is charged to: a user of an organization, for all of their tokens, or a
//! certificate's name. Rotating a token, or creating another one, makes no new account. Called when a
//! caller is created.

use sha2::{Digest as _, Sha256};

use super::principal::Principal;

/// An account, identified by 128 bits of a hash: short, because it is copied with every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account([u8; 16]);

impl Account {
    /// Returns the account of a user of an organization.
    #[must_use]
    pub fn of_user(organization_id: &[u8], user_id: &[u8]) -> Self {
        Self::of(b"tokend/account/user/1", &[organization_id, user_id])
    }

    /// Returns the account of a principal that is no token.
    #[must_use]
    pub fn of_principal(principal: &Principal) -> Self {
        Self::of(b"tokend/account/principal/1", &[principal.to_string().as_bytes()])
    }

    fn of(kind: &[u8], parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new_with_prefix(kind);
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_differ_by_user_and_by_organization() {
        let of = |organization: &str, user: &str| Account::of_user(organization.as_bytes(), user.as_bytes());
        assert_eq!(of("acme", "ada"), of("acme", "ada"));
        for (organization, user) in [("acme", "bob"), ("other", "ada"), ("acm", "eada")] {
            assert_ne!(of("acme", "ada"), of(organization, user));
        }
        let certificate = |name: &str| Account::of_principal(&Principal::Certificate(name.into()));
        assert_ne!(certificate("spiffe://a"), certificate("spiffe://b"));
    }
}
