//! The only file that reads the machine's clock and randomness; code below the actions takes both
//! as arguments. `Instant::now()`, for timeouts and durations, is used anywhere. No decision about a token uses this clock: those use the database's.

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

/// Returns a new trace id (W3C Trace Context); never 0. Guessable, so not a secret.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn trace_id() -> u128 {
    rand::random_range(1..=u128::MAX)
}

/// Returns `duration` changed at random by at most a tenth, so that things that start together end
/// at different times.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn about(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..=1.1))
}

/// Returns a random UUID that identifies something of this process. Guessable, so not a secret.
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
