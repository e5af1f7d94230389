//! The one place where the machine's clock and randomness come in. Everything below the actions takes
//! both as arguments. No decision about a token rests on this clock: those use the database's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970 by this machine's clock; 0 when it stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns the clock")]
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the operating system's source of randomness.
#[must_use]
#[expect(clippy::disallowed_types, reason = "this is the file that owns randomness")]
pub fn randomness() -> rand::rngs::SysRng {
    rand::rngs::SysRng
}

/// Returns a number that tells this process's calls apart in its logs. Guessable: no secret.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn call_id() -> u64 {
    rand::random()
}
