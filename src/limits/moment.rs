//! When a request is judged. Made where a request is spent, read by slots and by what is said of them. Knows no limit.

use time::OffsetDateTime;

use crate::clock::BootInstant;

/// A moment by the clocks of this machine and by that of the database.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// On this machine.
    pub instant: BootInstant,
    /// By the database's clock.
    pub now: OffsetDateTime,
    /// Since when the request has waited for the lease that it asked for last; `None`: it did not.
    pub asked: Option<BootInstant>,
}
