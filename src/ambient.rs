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

/// Returns what names a new trace (W3C Trace Context); never 0. Guessable: no secret.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that owns randomness")]
pub fn trace_id() -> u128 {
    rand::random_range(1..=u128::MAX)
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

/// A moment on this machine, by two clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the machine started, time in suspension included.
    pub boot: i64,
    /// Since 1970; may jump.
    pub wall: i64,
}

impl Moment {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        let boot = rustix::time::ClockId::Boottime;
        // Elsewhere the monotonic clock goes on while the machine sleeps (macOS), or is the best there is.
        #[cfg(not(target_os = "linux"))]
        let boot = rustix::time::ClockId::Monotonic;
        Self { boot: read(boot), wall: read(rustix::time::ClockId::Realtime) }
    }

    /// Returns how long ago `earlier` was: the larger of what the two clocks say, never negative. A machine
    /// that was paused shows in at least one of them.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        let nanos = (self.boot - earlier.boot).max(self.wall - earlier.wall);
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

fn read(clock: rustix::time::ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
