//! The moment at which the cache is read, and what was found there. Made by the lookup, used by the engine.

use time::OffsetDateTime;

use crate::changefeed::freshness;
use crate::clock::BootInstant;
use crate::domain::Record;

/// A moment at which the cache may answer, and how fresh it is then. Taken when questions that have arrived are about
/// to be answered, used for the caller's credential and for them alike, and not kept.
#[derive(Debug, Clone, Copy)]
pub struct ReadPoint {
    pub(super) moment: BootInstant,
    pub(super) reading: freshness::Reading,
}

/// A record that was found for a secret, or that there is none, and the moment of it.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) record: Option<Record>,
    pub(super) now: OffsetDateTime,
    pub(super) as_of: OffsetDateTime,
    /// The cache is too old to answer by itself, and stands in for a database that is away.
    pub(super) standing_in: bool,
}
