//! The durable verifier: Argon2id (RFC 9106) as a PHC string, which needs no key and so survives the
//! loss of all keys. Computed at creation, checked only when a MAC's key is gone.

use std::fmt;

use argon2::password_hash::phc::{Ident, Output, PasswordHash};
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryCryptoRng;

use super::Secret;

const DOMAIN: &[u8] = b"tokend/argon2/1";
const COVERED: usize = DOMAIN.len() + 48;
const SALT: usize = 16;
const PARAMS: [Ident; 3] = [Ident::new_unwrap("m"), Ident::new_unwrap("t"), Ident::new_unwrap("p")];

/// The cost of one hash. The default is OWASP's: 19 MiB, two passes, one lane; about 16 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableCost {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
}

/// Why a durable hash could not be computed or checked.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The costs are outside Argon2's limits.
    #[error("argon2 does not accept these costs")]
    Cost(#[source] argon2::Error),
    /// The stored text is not what this crate writes: a PHC string of Argon2id, version 19, with m, t,
    /// p once each in this order, a salt and 32 bytes. Omits the parser's error, which may repeat the
    /// text.
    #[error("the stored hash is not argon2id of version 19 as tokend writes it")]
    Foreign,
    /// Checking the stored hash would cost more than is configured.
    #[error("the stored hash costs more than this server is configured to spend; raise its argon2 settings")]
    TooCostly,
    /// The operating system gave no random numbers for a salt.
    #[error("no random numbers for a salt")]
    Randomness(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Argon2 failed.
    #[error("argon2 failed")]
    Failed(#[source] password_hash::Error),
}

impl DurableCost {
    /// Accepts costs within Argon2's limits: memory in KiB, passes, and lanes.
    ///
    /// # Errors
    /// [`DurableError::Cost`].
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, DurableError> {
        Params::new(memory_kib, iterations, parallelism, None).map_err(DurableError::Cost)?;
        Ok(Self { memory_kib, iterations, parallelism })
    }

    /// Returns the memory that a hash fills, in KiB.
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Returns how many passes a hash makes.
    #[must_use]
    pub const fn iterations(self) -> u32 {
        self.iterations
    }

    /// Returns how many lanes a hash has.
    #[must_use]
    pub const fn parallelism(self) -> u32 {
        self.parallelism
    }

    fn argon2(self) -> Result<Argon2<'static>, DurableError> {
        let params = Params::new(self.memory_kib, self.iterations, self.parallelism, None);
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(DurableError::Cost)?))
    }

    fn allows(self, params: &Params) -> bool {
        params.m_cost() <= self.memory_kib
            && params.t_cost() <= self.iterations
            && params.p_cost() <= self.parallelism
    }
}

impl Default for DurableCost {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

/// A durable verifier, as the stored PHC string. Its Debug output reveals nothing.
#[derive(Clone)]
pub struct DurableHash(String);

impl DurableHash {
    /// Wraps a stored PHC string; it is checked when it is used.
    #[must_use]
    pub fn from_phc(phc: String) -> Self {
        Self(phc)
    }

    /// Returns the PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Computes the hash of a secret with a new salt. Takes milliseconds and mebibytes: run it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// [`DurableError::Randomness`] and [`DurableError::Failed`].
    pub fn compute<R>(secret: &Secret, cost: DurableCost, randomness: &mut R) -> Result<Self, DurableError>
    where
        R: TryCryptoRng<Error: Send + Sync + 'static>,
    {
        let mut salt = [0; SALT];
        randomness.try_fill_bytes(&mut salt).map_err(|error| DurableError::Randomness(Box::new(error)))?;
        let covered = secret.covered::<COVERED>(DOMAIN);
        let hash: PasswordHash = cost
            .argon2()?
            .hash_password_with_salt(covered.as_slice(), &salt)
            .map_err(DurableError::Failed)?;
        Ok(Self(hash.to_string()))
    }

    /// Returns whether this is the hash of the secret. Takes as long as computing it, unless it is
    /// rejected.
    ///
    /// # Errors
    /// [`DurableError::Foreign`] and [`DurableError::TooCostly`], before any work is done;
    /// [`DurableError::Failed`].
    pub fn verify(&self, secret: &Secret, limit: DurableCost) -> Result<bool, DurableError> {
        let hash = PasswordHash::new(&self.0).map_err(|_| DurableError::Foreign)?;
        if hash.algorithm != Algorithm::Argon2id.ident()
            || hash.version != Some(Version::V0x13.into())
            || hash.salt.is_none()
            || hash.hash.as_ref().map(Output::len) != Some(Params::DEFAULT_OUTPUT_LEN)
            // Argon2's parser would fill in a missing cost, use the last of two, and accept keyid and
            // data.
            || !hash.params.iter().map(|(name, _)| name).eq(PARAMS)
        {
            return Err(DurableError::Foreign);
        }
        let params = Params::try_from(&hash).map_err(|_| DurableError::Foreign)?;
        if !limit.allows(&params) {
            return Err(DurableError::TooCostly);
        }
        let covered = secret.covered::<COVERED>(DOMAIN);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        match argon2.verify_password(covered.as_slice(), &hash) {
            Ok(()) => Ok(true),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(DurableError::Failed(error)),
        }
    }
}

impl fmt::Debug for DurableHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableHash([redacted])")
    }
}

#[cfg(test)]
mod tests;
