//! The clocks that measure the age of a cache: one that continues while the machine is suspended, and
//! the wall clock, since a pause of the machine may show in only one of them. The only file of this
//! crate that calls the operating system.

use std::time::Duration;

/// A moment on this machine, by two clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootInstant {
    /// Since the machine started, including time in suspension.
    pub boot: i64,
    /// Since 1970; may jump.
    pub wall: i64,
}

impl BootInstant {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        let boot = rustix::time::ClockId::Boottime;
        // On macOS the monotonic clock continues while the machine sleeps; on other systems it is the
        // best available.
        #[cfg(not(target_os = "linux"))]
        let boot = rustix::time::ClockId::Monotonic;
        Self { boot: read(boot), wall: read(rustix::time::ClockId::Realtime) }
    }

    /// Returns how long ago `earlier` was: the larger value of the two clocks, never negative. A pause
    /// of the machine shows in at least one of them.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = (self.boot - earlier.boot).max(self.wall - earlier.wall);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

fn read(clock: rustix::time::ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
