//! The clocks by which a cache grows old: one that goes on while the machine is suspended, and the wall clock
//! beside it, since a machine that was paused may show it in one of them only. The one file of this crate that
//! asks the operating system for anything.

use std::time::Duration;

/// A moment on this machine, by two clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootInstant {
    /// Since the machine started, time in suspension included.
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
        // Elsewhere the monotonic clock goes on while the machine sleeps (macOS), or is the best there is.
        #[cfg(not(target_os = "linux"))]
        let boot = rustix::time::ClockId::Monotonic;
        Self { boot: read(boot), wall: read(rustix::time::ClockId::Realtime) }
    }

    /// Returns how long ago `earlier` was: the larger of what the two clocks say, never negative. A machine
    /// that was paused shows in at least one of them.
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
