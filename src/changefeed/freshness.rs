//! How old the cache may be, and what time it is by the database's clock. Written by the feed after
//! every successful poll, read by every Verify before it looks up the record. Reads no clock itself:
//! moments are arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use time::OffsetDateTime;

use crate::clock::BootInstant;
use crate::store::{self, ClockCheck, Epoch};

/// How far a time may appear to differ from the real one.
const TOLERANCE: time::Duration = time::Duration::new(store::TOLERANCE.as_secs().cast_signed(), 0);

/// How old a response from the cache may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The age up to which the cache answers by itself.
    pub max_staleness: Duration,
    /// How much longer cached VALIDs are used when Postgres cannot be read.
    pub outage_grace: Duration,
}

impl Bounds {
    /// Returns the maximum age of a response, after any failure.
    #[must_use]
    pub fn longest(self) -> Duration {
        self.max_staleness + self.outage_grace
    }
}

/// What a successful poll returned.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    /// When it was sent: every change committed before then has been handled.
    pub(crate) sent: BootInstant,
    /// The database's time when it answered.
    pub(crate) database_time: OffsetDateTime,
    /// The epoch of the server that answered.
    pub(crate) epoch: Epoch,
    /// The replica was registered by then, with that server and any server that replaces it: so the
    /// cache may answer.
    pub(crate) registered: bool,
}

/// A poll, the clock reading in use, and the time below which the current time must not fall.
#[derive(Debug)]
struct Published {
    poll: Poll,
    /// The last clock reading that was accepted.
    clock: store::ClockReading,
    floor: OffsetDateTime,
}

/// The latest poll.
#[derive(Debug)]
pub(crate) struct Freshness {
    bounds: Bounds,
    latest: ArcSwapOption<Published>,
    /// False while the database does not record changes.
    recording: AtomicBool,
}

/// How fresh the cache is at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshnessReading {
    /// How old the cache is.
    pub(crate) age: Duration,
    /// A database time; the cache is at least as new as this.
    pub(crate) as_of: OffsetDateTime,
    /// The database's time now.
    pub(crate) now: OffsetDateTime,
    registered: bool,
}

impl Freshness {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, latest: ArcSwapOption::empty(), recording: AtomicBool::new(true) }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Publishes a poll whose changes have all been removed from the cache, with the verdict on its
    /// clock reading. `now`: the moment of publishing.
    pub(crate) fn publish(&self, poll: Poll, noted: ClockCheck, now: BootInstant) {
        let read = store::ClockReading { sent: poll.sent, time: poll.database_time };
        let before = self.latest.load();
        let (clock, floor) = match (noted, before.as_deref()) {
            // The accepted reading stays in use.
            (ClockCheck::Doubted(_), Some(before)) => (before.clock, before.floor),
            // Never back, and never ahead of the clock by more than the tolerance.
            (ClockCheck::Expected, Some(before)) => {
                (read, before.now(now).min(read.at(now).saturating_add(TOLERANCE)))
            }
            _ => (read, read.time),
        };
        self.latest.store(Some(Arc::new(Published { poll, clock, floor })));
    }

    /// Returns the freshness at `now`; `None` before the first poll.
    pub(crate) fn read(&self, now: BootInstant) -> Option<FreshnessReading> {
        let latest = self.latest.load();
        let published = latest.as_deref()?;
        Some(FreshnessReading {
            age: now.since(published.poll.sent),
            // While the clock is doubted, the last accepted time: the cache is newer than that.
            as_of: published.clock.time,
            now: published.now(now),
            registered: published.poll.registered,
        })
    }

    /// Notes whether the database records changes; `mend` says how to fix it if not. While it does not,
    /// the cache is cleared at each poll, so responses are as fresh as always.
    pub(crate) fn set_recording(&self, mend: Option<&str>) {
        let recorded = self.recording.swap(mend.is_none(), Ordering::AcqRel);
        match mend {
            Some(mend) if recorded => {
                tracing::error!(
                    mend,
                    "triggers of the table tokens are off: changes are not recorded; not ready"
                );
            }
            None if !recorded => tracing::info!("changes are recorded again"),
            _ => {}
        }
    }

    /// Returns whether the database recorded changes at the latest poll.
    pub(crate) fn receives_changes(&self) -> bool {
        self.recording.load(Ordering::Acquire)
    }

    /// Returns whether the replica was registered with the database at the latest poll.
    pub(crate) fn is_registered(&self) -> bool {
        self.latest.load().as_deref().is_some_and(|published| published.poll.registered)
    }

    /// Returns the epoch of the latest poll.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.latest.load().as_deref().map(|published| published.poll.epoch.clone())
    }
}

impl Published {
    /// Returns the current time, by the boot clock alone: a jump of the wall clock must neither expire
    /// a token nor prolong it.
    fn now(&self, now: BootInstant) -> OffsetDateTime {
        self.clock.at(now).max(self.floor)
    }
}

impl FreshnessReading {
    /// Combines this reading with the time that a read from Postgres returned: gives the database's
    /// time that the record is at least as new as, and the current time. A time too far ahead of the
    /// clock that the feed follows is ignored.
    pub(crate) fn with(self, as_of: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
        let is_followed = self.age <= TOLERANCE;
        if is_followed && as_of > self.now.saturating_add(TOLERANCE) {
            return (self.as_of, self.now);
        }
        (as_of, self.now.max(as_of))
    }

    /// Returns whether the cache may answer by itself.
    pub(crate) fn may_answer(&self, bounds: Bounds) -> bool {
        self.registered && self.age <= bounds.max_staleness
    }

    /// Returns whether a cached VALID may be used when the database cannot be read.
    pub(crate) fn may_answer_stale(&self, bounds: Bounds) -> bool {
        self.registered && !bounds.outage_grace.is_zero() && self.age <= bounds.longest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const SECOND: i64 = 1_000_000_000;
    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
    const BOUNDS: Bounds =
        Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::from_secs(2) };

    fn instant(boot: i64, wall: i64) -> BootInstant {
        BootInstant { boot: boot * SECOND, wall: wall * SECOND }
    }

    fn polled(sent: BootInstant, database_time: OffsetDateTime) -> Poll {
        Poll { sent, database_time, epoch: Epoch::parse("a".to_owned()), registered: true }
    }

    fn published(sent: BootInstant) -> Freshness {
        let freshness = Freshness::new(BOUNDS);
        freshness.publish(polled(sent, NOON), ClockCheck::Reset, sent);
        freshness
    }

    #[test]
    fn there_is_no_freshness_before_the_first_poll() {
        assert!(Freshness::new(BOUNDS).read(instant(1, 1)).is_none());
    }

    #[test]
    fn the_cache_answers_up_to_its_bound_and_during_an_outage_up_to_the_longer_one() {
        let freshness = published(instant(10, 100));
        let at = |boot, wall| freshness.read(instant(boot, wall)).unwrap();
        assert!(at(11, 101).may_answer(BOUNDS));
        assert!(!at(12, 102).may_answer(BOUNDS) && at(13, 103).may_answer_stale(BOUNDS));
        assert!(!at(14, 104).may_answer_stale(BOUNDS));
        let no_grace = Bounds { outage_grace: Duration::ZERO, ..BOUNDS };
        assert!(!at(10, 100).may_answer_stale(no_grace));
    }

    #[test]
    fn the_cache_of_an_unregistered_replica_is_not_used() {
        let freshness = Freshness::new(BOUNDS);
        let unknown = Poll { registered: false, ..polled(instant(10, 100), NOON) };
        freshness.publish(unknown, ClockCheck::Reset, instant(10, 100));
        let reading = freshness.read(instant(10, 100)).unwrap();
        assert!(!reading.may_answer(BOUNDS) && !reading.may_answer_stale(BOUNDS));
        assert_eq!(reading.now, NOON);
    }

    #[test]
    fn a_pause_seen_by_one_clock_counts() {
        let freshness = published(instant(10, 100));
        assert!(!freshness.read(instant(10, 200)).unwrap().may_answer(BOUNDS));
        assert!(!freshness.read(instant(200, 100)).unwrap().may_answer(BOUNDS));
    }

    #[test]
    fn a_jump_of_the_wall_clock_neither_changes_the_time_nor_makes_the_cache_younger() {
        let freshness = published(instant(10, 100));
        for wall in [0, 100, 1_000_000] {
            let reading = freshness.read(instant(15, wall)).unwrap();
            assert_eq!(reading.now, NOON + time::Duration::seconds(5));
            assert!(!reading.may_answer(BOUNDS));
        }
    }

    #[test]
    fn the_databases_time_never_goes_back_by_a_small_step() {
        let freshness = published(instant(10, 100));
        let before = freshness.read(instant(20, 110)).unwrap().now;
        let slower = polled(instant(19, 109), NOON + time::Duration::seconds(8));
        freshness.publish(slower, ClockCheck::Expected, instant(20, 110));
        let after = freshness.read(instant(20, 110)).unwrap();
        assert_eq!(after.now, before);
        assert_eq!(after.as_of, NOON + time::Duration::seconds(8));
        let later = freshness.read(instant(40, 130)).unwrap().now;
        assert_eq!(later, NOON + time::Duration::seconds(29));
    }

    #[test]
    fn many_small_steps_back_do_not_add_up() {
        let freshness = published(instant(0, 0));
        for at in 1..100 {
            // A second passes, and the database's clock does not move.
            freshness.publish(polled(instant(at, at), NOON), ClockCheck::Expected, instant(at, at));
            let ahead = freshness.read(instant(at, at)).unwrap().now - NOON;
            assert!(ahead <= TOLERANCE, "{ahead}");
        }
    }

    #[test]
    fn a_doubted_reading_changes_only_the_age_and_a_lasting_one_changes_the_time() {
        let freshness = published(instant(10, 100));
        let wrong = NOON + time::Duration::days(3_650);
        freshness.publish(polled(instant(11, 101), wrong), ClockCheck::Doubted(true), instant(11, 101));
        let doubted = freshness.read(instant(12, 102)).unwrap();
        assert_eq!(doubted.now, NOON + time::Duration::seconds(2));
        assert_eq!((doubted.as_of, doubted.age), (NOON, Duration::from_secs(1)));
        assert_eq!(doubted.with(wrong), (NOON, doubted.now));
        let newer = NOON + time::Duration::seconds(3);
        assert_eq!(doubted.with(newer), (newer, newer));

        freshness.publish(polled(instant(20, 110), wrong), ClockCheck::Reset, instant(20, 110));
        assert_eq!(freshness.read(instant(20, 110)).unwrap().now, wrong);
        let right = NOON + time::Duration::seconds(20);
        freshness.publish(polled(instant(30, 120), right), ClockCheck::Reset, instant(30, 120));
        assert_eq!(freshness.read(instant(30, 120)).unwrap().now, right);
    }
}
