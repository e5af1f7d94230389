//! The durable verifier: Argon2id (RFC 9106), which needs no key and so survives the loss of all keys. Computed at
//! creation, checked only when a MAC's key is gone.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryCryptoRng;
use subtle::ConstantTimeEq as _;

use super::Secret;

const DOMAIN: &[u8] = b"tokend/argon2/1";
const COVERED_BYTES: usize = DOMAIN.len() + 48;
const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;
/// Stands first in a stored hash: Argon2id of version 19, as [`DurableHash::as_bytes`] says.
const ARGON2ID_19: u8 = 1;

/// The cost of one hash. The default is OWASP's: 19 MiB, two passes, one lane; about 16 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableCost {
    memory_kib: u32,
    iterations: u16,
    parallelism: u8,
}

/// Why a durable hash could not be computed or checked.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The costs are outside Argon2's limits.
    #[error("argon2 does not accept these costs")]
    Cost(#[source] argon2::Error),
    /// The costs are outside the limits of what is stored.
    #[error("at most 65535 iterations and 255 lanes")]
    Large,
    /// The stored bytes are not what this crate writes.
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
    Failed(#[source] argon2::Error),
}

impl DurableCost {
    /// Accepts costs within Argon2's limits: memory in KiB, passes, and lanes.
    ///
    /// # Errors
    /// [`DurableError::Cost`] and [`DurableError::Large`].
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, DurableError> {
        Params::new(memory_kib, iterations, parallelism, None).map_err(DurableError::Cost)?;
        let iterations = iterations.try_into().map_err(|_| DurableError::Large)?;
        let parallelism = parallelism.try_into().map_err(|_| DurableError::Large)?;
        Ok(Self { memory_kib, iterations, parallelism })
    }

    /// Returns the memory that a hash fills, in KiB.
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Returns how many passes a hash makes.
    #[must_use]
    pub const fn iterations(self) -> u16 {
        self.iterations
    }

    /// Returns how many lanes a hash has.
    #[must_use]
    pub const fn parallelism(self) -> u8 {
        self.parallelism
    }

    fn output(self, secret: &Secret, salt: &[u8; SALT_BYTES]) -> Result<[u8; OUTPUT_BYTES], DurableError> {
        let params = Params::new(self.memory_kib, self.iterations.into(), self.parallelism.into(), None);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(DurableError::Cost)?);
        let covered = secret.covered::<COVERED_BYTES>(DOMAIN);
        let mut output = [0; OUTPUT_BYTES];
        argon2.hash_password_into(covered.as_slice(), salt, &mut output).map_err(DurableError::Failed)?;
        Ok(output)
    }

    fn allows(self, other: Self) -> bool {
        other.memory_kib <= self.memory_kib
            && other.iterations <= self.iterations
            && other.parallelism <= self.parallelism
    }
}

impl Default for DurableCost {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

/// A durable verifier, as it is stored: 56 bytes. Its Debug output reveals nothing.
#[derive(Clone)]
pub struct DurableHash(Vec<u8>);

impl DurableHash {
    /// Wraps stored bytes; they are checked when they are used.
    #[must_use]
    pub fn from_bytes(stored: Vec<u8>) -> Self {
        Self(stored)
    }

    /// Returns the bytes to store: 1, the memory in KiB (4 bytes, big-endian), the passes (2), the lanes (1), the salt
    /// (16) and Argon2's output (32).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
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
        let mut salt = [0; SALT_BYTES];
        randomness.try_fill_bytes(&mut salt).map_err(|error| DurableError::Randomness(Box::new(error)))?;
        let output = cost.output(secret, &salt)?;
        let DurableCost { memory_kib, iterations, parallelism } = cost;
        let (memory_kib, iterations) = (memory_kib.to_be_bytes(), iterations.to_be_bytes());
        Ok(Self([&[ARGON2ID_19], &memory_kib[..], &iterations, &[parallelism], &salt, &output].concat()))
    }

    /// Returns whether this is the hash of the secret; compares in constant time. Takes as long as computing it, unless
    /// it is rejected.
    ///
    /// # Errors
    /// [`DurableError::Foreign`] and [`DurableError::TooCostly`], before any work is done;
    /// [`DurableError::Failed`].
    pub fn verify(&self, secret: &Secret, limit: DurableCost) -> Result<bool, DurableError> {
        let (cost, salt, output) = parse(&self.0).ok_or(DurableError::Foreign)?;
        if !limit.allows(cost) {
            return Err(DurableError::TooCostly);
        }
        Ok(cost.output(secret, salt)?.ct_eq(output).into())
    }
}

/// Reads the parts of a stored hash; `None`: it is not what [`DurableHash::compute`] gives.
fn parse(stored: &[u8]) -> Option<(DurableCost, &[u8; SALT_BYTES], &[u8; OUTPUT_BYTES])> {
    let (&kind, rest) = stored.split_first()?;
    let (memory_kib, rest) = rest.split_first_chunk()?;
    let (iterations, rest) = rest.split_first_chunk()?;
    let (&parallelism, rest) = rest.split_first()?;
    let (salt, output) = rest.split_first_chunk()?;
    let (memory_kib, iterations) = (u32::from_be_bytes(*memory_kib), u16::from_be_bytes(*iterations));
    let cost = DurableCost::new(memory_kib, iterations.into(), parallelism.into()).ok()?;
    Some((cost, salt, output.try_into().ok()?)).filter(|_| kind == ARGON2ID_19)
}

impl fmt::Debug for DurableHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableHash([redacted])")
    }
}

#[cfg(test)]
mod tests;
