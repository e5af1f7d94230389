//! The one place where randomness comes in.

use rand::distr::{Distribution, StandardUniform};

/// Returns a value from the operating system's randomness, by a generator of this thread that is good for keys.
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    rand::random()
}
