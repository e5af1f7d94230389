//! How old the cache may be, and what time it is by the database's clock. Written by the feed after every
//! successful poll, read by every Verify before it looks a record up. Knows no clock of its own: moments are
//! arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use time::OffsetDateTime;

use crate::ambient::Moment;
use crate::store::Epoch;

/// How old an answer from the cache may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The age up to which the cache answers by itself.
    pub max_staleness: Duration,
    /// How much longer cached VALIDs live when Postgres cannot be asked.
    pub outage_grace: Duration,
}

impl Bounds {
    /// Returns the age that no answer exceeds, whatever has failed.
    #[must_use]
    pub fn longest(self) -> Duration {
        self.max_staleness + self.outage_grace
    }
}

/// What a successful poll told.
#[derive(Debug, Clone)]
pub(super) struct Poll {
    /// When it was sent: every change committed before then has been handled.
    pub(super) sent: Moment,
    /// The database's time when it was answered.
    pub(super) database_time: OffsetDateTime,
    /// Which life of which server answered.
    pub(super) epoch: Epoch,
    /// The replica was known by then, to that server and whatever takes its place: so the cache may answer.
    pub(super) registered: bool,
}

/// A poll, and the time below which the clock must not fall.
#[derive(Debug)]
struct Published {
    poll: Poll,
    floor: OffsetDateTime,
}

/// The latest poll.
#[derive(Debug)]
pub(super) struct Freshness {
    bounds: Bounds,
    latest: ArcSwapOption<Published>,
    /// False while the database does not record changes.
    recording: AtomicBool,
}

/// What is known at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// How old the cache is.
    pub(super) age: Duration,
    /// The database's time that the cache is at least as new as.
    pub(super) as_of: OffsetDateTime,
    /// The database's time now.
    pub(super) now: OffsetDateTime,
    registered: bool,
}

impl Freshness {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, latest: ArcSwapOption::empty(), recording: AtomicBool::new(true) }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Publishes a poll whose changes have all been removed from the cache. `now`: the moment of doing so.
    pub(super) fn publish(&self, poll: Poll, now: Moment) {
        let floor = self.read(now).map_or(poll.database_time, |reading| reading.now);
        self.latest.store(Some(Arc::new(Published { poll, floor })));
    }

    /// Tells what is known at `now`; `None` before the first poll.
    pub(super) fn read(&self, now: Moment) -> Option<Reading> {
        let latest = self.latest.load();
        let Published { poll, floor } = latest.as_deref()?;
        // The boot clock alone: a wall clock that jumps must not make a token expire, or live on.
        let elapsed = time::Duration::nanoseconds((now.boot - poll.sent.boot).max(0));
        Some(Reading {
            age: now.since(poll.sent),
            as_of: poll.database_time,
            now: poll.database_time.saturating_add(elapsed).max(*floor),
            registered: poll.registered,
        })
    }

    /// Notes whether the database records changes, or else what mends it. While it does not, the cache starts anew
    /// with each poll, and answers are as fresh as ever.
    pub(super) fn tell_recording(&self, mend: Option<&str>) {
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

    /// Tells whether the database recorded changes at the latest poll.
    pub(super) fn is_told_changes(&self) -> bool {
        self.recording.load(Ordering::Acquire)
    }

    /// Returns the epoch of the latest poll.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.latest.load().as_deref().map(|published| published.poll.epoch.clone())
    }
}

impl Reading {
    /// Tells whether the cache may answer by itself.
    pub(super) fn may_answer(&self, bounds: Bounds) -> bool {
        self.registered && self.age <= bounds.max_staleness
    }

    /// Tells whether a cached VALID may stand in for a database that cannot be asked.
    pub(super) fn may_stand_in(&self, bounds: Bounds) -> bool {
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

    fn moment(boot: i64, wall: i64) -> Moment {
        Moment { boot: boot * SECOND, wall: wall * SECOND }
    }

    fn polled(sent: Moment, database_time: OffsetDateTime) -> Poll {
        Poll { sent, database_time, epoch: Epoch::parse("a".to_owned()), registered: true }
    }

    fn published(sent: Moment) -> Freshness {
        let freshness = Freshness::new(BOUNDS);
        freshness.publish(polled(sent, NOON), sent);
        freshness
    }

    #[test]
    fn nothing_is_known_before_the_first_poll() {
        assert!(Freshness::new(BOUNDS).read(moment(1, 1)).is_none());
    }

    #[test]
    fn the_cache_answers_up_to_its_bound_and_stands_in_up_to_the_longer_one() {
        let freshness = published(moment(10, 100));
        let at = |boot, wall| freshness.read(moment(boot, wall)).unwrap();
        assert!(at(11, 101).may_answer(BOUNDS));
        assert!(!at(12, 102).may_answer(BOUNDS) && at(13, 103).may_stand_in(BOUNDS));
        assert!(!at(14, 104).may_stand_in(BOUNDS));
        let no_grace = Bounds { outage_grace: Duration::ZERO, ..BOUNDS };
        assert!(!at(10, 100).may_stand_in(no_grace));
    }

    #[test]
    fn nothing_comes_from_the_cache_of_a_replica_that_is_not_known() {
        let freshness = Freshness::new(BOUNDS);
        let unknown = Poll { registered: false, ..polled(moment(10, 100), NOON) };
        freshness.publish(unknown, moment(10, 100));
        let reading = freshness.read(moment(10, 100)).unwrap();
        assert!(!reading.may_answer(BOUNDS) && !reading.may_stand_in(BOUNDS));
        assert_eq!(reading.now, NOON);
    }

    #[test]
    fn a_pause_that_only_one_clock_saw_counts() {
        let freshness = published(moment(10, 100));
        assert!(!freshness.read(moment(10, 200)).unwrap().may_answer(BOUNDS));
        assert!(!freshness.read(moment(200, 100)).unwrap().may_answer(BOUNDS));
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_neither_the_time_nor_makes_the_cache_younger() {
        let freshness = published(moment(10, 100));
        for wall in [0, 100, 1_000_000] {
            let reading = freshness.read(moment(15, wall)).unwrap();
            assert_eq!(reading.now, NOON + time::Duration::seconds(5));
            assert!(!reading.may_answer(BOUNDS));
        }
    }

    #[test]
    fn the_databases_time_never_goes_back() {
        let freshness = published(moment(10, 100));
        let before = freshness.read(moment(20, 110)).unwrap().now;
        let slower = polled(moment(19, 109), NOON + time::Duration::seconds(3));
        freshness.publish(slower, moment(20, 110));
        let after = freshness.read(moment(20, 110)).unwrap();
        assert_eq!(after.now, before);
        assert_eq!(after.as_of, NOON + time::Duration::seconds(3));
        let later = freshness.read(moment(40, 130)).unwrap().now;
        assert_eq!(later, NOON + time::Duration::seconds(24));
    }
}
