//! How stale cached records may be, and the time by the database's clock. Written by the follower after
//! every batch, read by every request before its lookup. Reads no clock: instants are arguments.
//!
//! Both follow from one fact: a time D of the database that was read after an instant `sent` here. So
//! at an instant `now` the database's clock shows at most D + (now − sent), and what the watch reported
//! as of T is at most that − T old, even if its message was delayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use time::OffsetDateTime;
use tokend_core::boot_instant::BootInstant;
use tokio::sync::Notify;

/// The divisor of elapsed time by which clocks may differ: 1/1024 is twice the most that clocks are
/// slewed by.
const DRIFT_DIVISOR: u32 = 1024;

/// A time of the database that was read after an instant here.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatabaseClock {
    pub(super) sent: BootInstant,
    pub(super) database_time: OffsetDateTime,
    /// The value of [`Freshness::start`] when the time was asked for.
    pub(super) start: u64,
}

/// The time up to which the watch has reported everything.
#[derive(Debug)]
struct Published {
    as_of: OffsetDateTime,
    clock: DatabaseClock,
    /// When it was received, and the most time that may have passed since `clock.sent` by then.
    received: BootInstant,
    lead: Duration,
    /// How long after `clock.sent` it may be used.
    budget: Duration,
    /// The clock must not fall below this time.
    floor: OffsetDateTime,
}

/// The published state when a request came, read before the request is judged and after: what is
/// published in between does not cover records that were looked up before.
pub(super) struct Snapshot(Guard<Option<Arc<Published>>>);

/// The freshness of cached records.
#[derive(Debug)]
pub(super) struct Freshness {
    staleness: Duration,
    clock: ArcSwapOption<DatabaseClock>,
    latest: ArcSwapOption<Published>,
    /// How often everything was restarted.
    start: AtomicU64,
    doubt: Notify,
}

/// The freshness at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreshnessReading {
    /// Cached records include every change before this time of the database.
    pub(super) as_of: OffsetDateTime,
    /// The database's time now, or a little later.
    pub(super) now: OffsetDateTime,
}

impl Freshness {
    pub(super) fn new(staleness: Duration) -> Self {
        let (clock, latest) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { staleness, clock, latest, start: AtomicU64::new(0), doubt: Notify::new() }
    }

    /// Returns how often everything was restarted. Must be read before the database is asked for its time.
    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Sets the clock, unless everything was restarted since the time was asked for.
    pub(super) fn set_clock(&self, clock: DatabaseClock) {
        if clock.start == self.start() {
            self.clock.store(Some(Arc::new(clock)));
        }
    }

    /// Waits until the clock is found to be wrong.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Publishes that every record changed before `as_of` has been removed. `now`: the current instant.
    pub(super) fn publish(&self, as_of: OffsetDateTime, now: BootInstant) {
        let clock = self.clock.load().as_deref().copied().filter(|clock| clock.start == self.start());
        let Some(clock) = clock else { return };
        if as_of > clock.latest(now) {
            // The database's clock was set forward since; by the old one everything would seem
            // newer than it is.
            self.restart();
            return;
        }
        let budget = Duration::try_from(as_of - clock.database_time + self.staleness);
        // Negative: it is too old already.
        let Ok(budget) = budget else { return };
        let before = self.latest.load().as_deref().map(|published| published.now(now));
        let floor = before.unwrap_or(clock.database_time);
        let published = Published { as_of, clock, received: now, lead: clock.elapsed(now), budget, floor };
        self.latest.store(Some(Arc::new(published)));
        if as_of > clock.database_time + drifting(since_by_boot(now, clock.sent)) {
            // The boot clock did not count a pause of the machine, and the wall clock may be set back.
            self.doubt.notify_one();
        }
    }

    /// Withdraws what was published, since changes may have been missed, and has the time asked for
    /// again: it may now come from another database.
    pub(super) fn restart(&self) {
        self.start.fetch_add(1, Ordering::AcqRel);
        self.latest.store(None);
        self.doubt.notify_one();
    }

    /// Returns the published state, to be read before a record is looked up and after it is judged.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.latest.load())
    }

    /// Returns the highest possible age of the cached records.
    pub(super) fn age(&self, now: BootInstant) -> Option<Duration> {
        let latest = self.latest.load();
        let published = latest.as_deref()?;
        Some(Duration::try_from(published.latest(now) - published.as_of).unwrap_or_default())
    }
}

impl DatabaseClock {
    /// Returns the longest possible time since the time was asked for: by the clock that shows
    /// more, plus drift.
    fn elapsed(&self, now: BootInstant) -> Duration {
        drifting(now.since(self.sent))
    }

    /// Returns the latest time that the database's clock may show.
    fn latest(&self, now: BootInstant) -> OffsetDateTime {
        self.database_time + self.elapsed(now)
    }
}

impl Snapshot {
    /// Returns the freshness at `now`, if cached records may be used then.
    pub(super) fn read(&self, now: BootInstant) -> Option<FreshnessReading> {
        let published = self.0.as_deref()?;
        let elapsed = published.elapsed(now);
        let reading =
            || FreshnessReading { as_of: published.as_of, now: published.at(elapsed).max(published.floor) };
        (elapsed <= published.budget).then(reading)
    }
}

impl Published {
    /// Returns the longest possible time since `clock.sent`. The time that had passed when it was
    /// received counts, even if the clocks have been changed since.
    fn elapsed(&self, now: BootInstant) -> Duration {
        self.clock.elapsed(now).max(self.lead + drifting(now.since(self.received)))
    }

    fn at(&self, elapsed: Duration) -> OffsetDateTime {
        self.clock.database_time + elapsed
    }

    /// Returns the latest time that the database's clock may show.
    fn latest(&self, now: BootInstant) -> OffsetDateTime {
        self.at(self.elapsed(now))
    }

    /// Returns the database's time, or a little later: never before what the watch has reported,
    /// and never before a time returned earlier. It may be early if a wall clock was set forward by
    /// less than the staleness.
    fn now(&self, now: BootInstant) -> OffsetDateTime {
        self.latest(now).max(self.floor)
    }
}

/// Returns the longest time that may have passed when a clock of this machine has measured `elapsed`.
fn drifting(elapsed: Duration) -> Duration {
    elapsed + elapsed / DRIFT_DIVISOR
}

fn since_by_boot(now: BootInstant, earlier: BootInstant) -> Duration {
    Duration::from_nanos(u64::try_from(now.boot - earlier.boot).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const SECOND: i64 = 1_000_000_000;
    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn instant(millis: i64) -> BootInstant {
        BootInstant { boot: millis * SECOND / 1000, wall: millis * SECOND / 1000 }
    }

    fn noon(millis: i64) -> OffsetDateTime {
        NOON + time::Duration::milliseconds(millis)
    }

    /// One second of staleness; at instant 0 it was noon.
    fn with_clock() -> Freshness {
        let freshness = Freshness::new(Duration::from_secs(1));
        freshness.set_clock(reading(&freshness, 0, NOON));
        freshness
    }

    fn read(freshness: &Freshness, now: BootInstant) -> Option<FreshnessReading> {
        freshness.snapshot().read(now)
    }

    /// Returns the allowed drift, 1/1024, of this many milliseconds.
    fn drift(millis: i64) -> time::Duration {
        time::Duration::nanoseconds(millis * SECOND / 1000 / 1024)
    }

    fn reading(freshness: &Freshness, millis: i64, database_time: OffsetDateTime) -> DatabaseClock {
        DatabaseClock { sent: instant(millis), database_time, start: freshness.start() }
    }

    #[test]
    fn there_is_no_freshness_before_the_clock_is_set_and_the_watch_has_reported() {
        let freshness = Freshness::new(Duration::from_secs(1));
        freshness.publish(NOON, instant(0));
        assert_eq!(read(&freshness, instant(0)), None);
        assert_eq!(read(&with_clock(), instant(0)), None);
    }

    #[test]
    fn records_may_be_used_up_to_the_declared_staleness() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        assert_eq!(
            read(&freshness, instant(5_500)),
            Some(FreshnessReading { as_of: noon(5_000), now: noon(5_500) + drift(5_500) })
        );
        // Less by the drift of the clocks.
        assert!(read(&freshness, instant(5_990)).is_some());
        assert!(read(&freshness, instant(6_001)).is_none());
    }

    #[tokio::test]
    async fn after_a_restart_only_a_newly_requested_time_counts() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        let under_way = reading(&freshness, 5_100, noon(5_100));
        freshness.restart();
        assert_eq!(read(&freshness, instant(5_150)), None);
        freshness.doubted().await;
        for _ in 0..2 {
            freshness.publish(noon(5_200), instant(5_200));
            assert_eq!(read(&freshness, instant(5_250)), None);
            freshness.set_clock(under_way);
        }
        freshness.set_clock(reading(&freshness, 5_300, noon(5_300)));
        freshness.publish(noon(5_400), instant(5_400));
        assert!(read(&freshness, instant(5_450)).is_some());
    }

    #[test]
    fn a_delayed_message_counts_with_its_true_age() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_900));
        assert!(read(&freshness, instant(5_950)).is_some());
        assert!(read(&freshness, instant(6_001)).is_none());
        freshness.publish(noon(5_500), instant(8_000));
        assert!(read(&freshness, instant(8_000)).is_none());
    }

    #[test]
    fn a_pause_seen_by_one_clock_counts_but_the_time_comes_from_the_boot_clock() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        for (boot, wall) in [(5_100, 90_000), (90_000, 5_100)] {
            let now = BootInstant { boot: boot * SECOND / 1000, wall: wall * SECOND / 1000 };
            assert_eq!(read(&freshness, now), None);
        }
        let back = BootInstant { boot: 5_100 * SECOND / 1000, wall: 0 };
        assert_eq!(read(&freshness, back).unwrap().now, noon(5_100) + drift(5_100));
    }

    #[tokio::test]
    async fn an_impossible_database_time_makes_the_client_ask_for_the_time_again() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        freshness.publish(noon(9_000), instant(5_250));
        assert_eq!(read(&freshness, instant(5_250)), None);
        freshness.doubted().await;
        freshness.publish(noon(9_250), instant(5_500));
        assert_eq!(read(&freshness, instant(5_500)), None);
        freshness.set_clock(reading(&freshness, 5_500, noon(9_250)));
        freshness.publish(noon(9_500), instant(5_750));
        assert_eq!(read(&freshness, instant(5_750)).unwrap().as_of, noon(9_500));
    }

    #[test]
    fn the_databases_time_never_goes_backwards() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        // A better time from the same request.
        freshness.set_clock(reading(&freshness, 5_200, noon(5_100)));
        freshness.publish(noon(5_100), instant(5_250));
        assert_eq!(read(&freshness, instant(5_260)).unwrap().now, noon(5_250) + drift(5_250));
        assert_eq!(read(&freshness, instant(5_500)).unwrap().now, noon(5_400) + drift(300));
    }

    /// A virtual machine that was paused for a minute: its boot clock stood still.
    #[tokio::test]
    async fn after_a_pause_that_the_boot_clock_missed_the_time_is_not_before_a_reported_one() {
        let freshness = with_clock();
        freshness.publish(noon(0), instant(0));
        let paused =
            |boot: i64, wall: i64| BootInstant { boot: boot * SECOND / 1000, wall: wall * SECOND / 1000 };
        freshness.publish(noon(60_100), paused(100, 60_100));
        assert!(read(&freshness, paused(150, 60_150)).unwrap().now >= noon(60_150));
        // The clock must be set again; until then a wall clock that is set back neither takes the
        // time back nor makes what is known newer.
        freshness.doubted().await;
        assert!(read(&freshness, paused(600, 600)).unwrap().now >= noon(60_600));
        assert_eq!(read(&freshness, paused(1_200, 1_200)), None);
    }

    #[test]
    fn the_time_is_never_before_the_databases_within_the_allowed_drift() {
        let freshness = with_clock();
        for seconds in 1..10 {
            // A local clock that is slow by 1/1100.
            let nanos = |database: i64| database * SECOND / 1000 / 1_100 * 1_099;
            let here = |database: i64| BootInstant { boot: nanos(database), wall: nanos(database) };
            freshness.publish(noon(seconds * 1_000), here(seconds * 1_000));
            let reading = read(&freshness, here(seconds * 1_000 + 500)).unwrap();
            assert!(reading.now >= noon(seconds * 1_000 + 499));
        }
    }

    #[test]
    fn a_later_publication_does_not_cover_an_earlier_lookup() {
        let freshness = with_clock();
        freshness.publish(noon(5_000), instant(5_000));
        let snapshot = freshness.snapshot();
        assert!(snapshot.read(instant(5_100)).is_some());
        freshness.publish(noon(8_000), instant(8_000));
        assert!(snapshot.read(instant(8_000)).is_none());
        assert!(read(&freshness, instant(8_000)).is_some());
    }
}
