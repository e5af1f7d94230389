//! What a verdict says of a token's limits. Made where a request is spent, read by everything that answers. Knows
//! no messages.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusKind {
    /// Requests per period.
    Rate,
    /// A balance.
    Credits,
}

/// One limit after a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// Its name in the plan.
    pub name: Arc<str>,
    /// What it counts.
    pub kind: StatusKind,
    /// The burst of a rate; 0 for credits.
    pub limit: i64,
    /// What this replica can tell is left.
    pub remaining: i64,
    /// When a rate is full again or credits are refilled next; `None`: it is full, or never.
    pub reset_time: Option<OffsetDateTime>,
    /// Whether this was decided without the database.
    pub admitted_in_outage: bool,
    /// How long an empty rate takes to be full; `None` for credits.
    pub window: Option<Duration>,
}

/// The limits that a verdict judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spending {
    /// The limits, in the order of the plan.
    pub limits: Vec<LimitStatus>,
    /// When the same request may succeed, if it was refused and that can change.
    pub retry_after: Option<Duration>,
}
