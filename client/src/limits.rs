//! The state of a token's limits, as a verdict reports it. Read from responses by `verification`; knows nothing of
//! how limits are counted.

use std::time::Duration;

use time::OffsetDateTime;

use crate::enums::LimitKind;
use crate::error::Error;
use crate::proto;
use crate::token::time;

/// One limit of a token's plan, as the replica that answered knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitStatus {
    /// Its name in the plan.
    pub name: String,
    /// What it counts.
    pub kind: LimitKind,
    /// The burst of a rate; 0 for credits.
    pub limit: i64,
    /// What is left, as far as the replica can tell.
    pub remaining: i64,
    /// When a rate is full again or credits are refilled next; `None`: it is full, or never.
    pub reset_time: Option<OffsetDateTime>,
    /// Whether the answer was given without the database, as the limit allows.
    pub admitted_in_outage: bool,
    /// How long an empty rate takes to be full; `None` for credits.
    pub window: Option<Duration>,
}

impl TryFrom<proto::LimitStatus> for LimitStatus {
    type Error = Error;

    fn try_from(message: proto::LimitStatus) -> Result<Self, Error> {
        let kind = LimitKind::read(message.kind());
        Ok(Self {
            name: message.name,
            kind: kind.ok_or_else(|| Error::invalid_response("kind"))?,
            limit: message.limit,
            remaining: message.remaining,
            reset_time: time("reset_time", message.reset_time)?,
            admitted_in_outage: message.admitted_in_outage,
            window: message.window.map(|window| span("window", window)).transpose()?,
        })
    }
}

/// Reads a span of time, which is never negative.
pub(crate) fn span(field: &'static str, message: prost_types::Duration) -> Result<Duration, Error> {
    message.try_into().map_err(|_| Error::invalid_response(field))
}
