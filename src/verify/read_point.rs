//! The moment at which the cache is read, and what was found there. Created by the lookup, used by the
//! engine.

use time::OffsetDateTime;

use crate::changefeed::freshness;
use crate::clock::BootInstant;
use crate::domain::Record;

/// A moment at which the cache may answer, and its freshness then. Taken just before a group of arrived
/// requests is answered, used for the caller's credential and for the requests alike, and not kept.
#[derive(Debug, Clone, Copy)]
pub struct ReadPoint {
    pub(super) instant: BootInstant,
    pub(super) reading: freshness::FreshnessReading,
}

/// The record found for a secret, or the fact that there is none, and the moment of the lookup.
#[derive(Debug)]
pub(super) struct LookupResult {
    pub(super) record: Option<Record>,
    pub(super) now: OffsetDateTime,
    pub(super) as_of: OffsetDateTime,
    /// The cache is stale, and answers while the database is unavailable.
    pub(super) is_stale: bool,
}
