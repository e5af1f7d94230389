//! The one place where the machine's clock and randomness come in. Everything below the actions takes
//! both as arguments. No decision about a token rests on this clock: those use the database's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokend_core::boot_instant::BootInstant;

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

/// Returns what names a new trace (W3C Trace Context); never 0. Guessable: no secret.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn trace_id() -> u128 {
    rand::random_range(1..=u128::MAX)
}

/// Returns a duration that differs from this one by a tenth of it at most: what begins together ends one by one.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn about(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..=1.1))
}

/// Returns bytes that name something of this process's own. Guessable: no secret.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn random_uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Returns the time by this machine's wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns the clock")]
pub fn now() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}
