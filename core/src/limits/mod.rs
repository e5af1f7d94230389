//! The rules of limits that several replicas share: how much of a rate or of a balance a replica may lease, and
//! how long it may spend that. Pure functions of their arguments. The database executes the same rules as SQL, and
//! the tests compare both. A replica leases shares and spends them in memory:
//!
//! - rate: what is spent in any interval is at most `burst` and what the database's clock refilled since one lease
//!   before the interval;
//! - credits: what was debited is what was spent, returned and lost.
//!
//! `escrow` tests both on replicas that are frozen, killed and cut off, with clocks that jump; and shows for each
//! rule an excess once the rule is removed.

pub mod calendar;
pub mod credits;
pub mod rate;
pub mod share;

#[cfg(test)]
mod escrow;

/// Replaced by the model checker.
mod sync {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64};

    /// Runs a test of a share, which the model checker would explore.
    #[cfg(test)]
    pub(super) fn explore(test: impl Fn()) {
        test();
    }
}

pub use calendar::CalendarPeriod;
pub use credits::{Balance, Debit, Refill, RefillMode};
pub use rate::{Allowance, Grant, Rate, Returned};
pub use share::{LeaseNumber, Share, Taken};
