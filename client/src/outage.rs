//! Logs an outage once, and not for each call that fails.

use std::sync::atomic::{AtomicI64, Ordering};

use tokend_core::boot_instant::BootInstant;

use crate::error::Error;

/// How long nothing may fail for an outage to be over, in nanoseconds.
const QUIET_NANOS: i64 = 30_000_000_000;

/// The time of the last failure, by the boot clock in nanoseconds.
#[derive(Debug)]
pub(crate) struct Outage(AtomicI64);

impl Default for Outage {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN / 2))
    }
}

impl Outage {
    /// Records a failure: its cause is logged as a warning when an outage begins, and at debug after that.
    pub(crate) fn note(&self, what: &'static str, cause: &Error) {
        if self.begins(BootInstant::now()) {
            tracing::warn!(%cause, "{what}; logged once, until nothing has failed for half a minute");
        } else {
            tracing::debug!(%cause, "{what}");
        }
    }

    /// Records a failure; returns whether it is the first for a while.
    fn begins(&self, now: BootInstant) -> bool {
        now.boot - self.0.swap(now.boot, Ordering::Relaxed) > QUIET_NANOS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_and_again_after_half_a_minute_without_failures() {
        let outage = Outage::default();
        let begins = |seconds: i64| outage.begins(BootInstant { boot: seconds * 1_000_000_000, wall: 0 });
        assert_eq!([0, 1, 30, 60, 91, 92].map(begins), [true, false, false, false, true, false]);
    }
}
