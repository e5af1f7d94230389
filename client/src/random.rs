//! The only file that uses randomness.

use rand::distr::{Distribution, StandardUniform};

/// Returns a random value from this thread's generator, which the operating system seeds and which
/// is safe for keys.
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    rand::random()
}
