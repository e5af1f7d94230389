//! Decides which readings of the database's clock to accept. It decides what has expired; if set, or wrong
//! for a moment, it must neither end tokens for good nor revive them at once: so each reading is compared
//! with the last one and this machine's boot clock. Written by the feed, read by it and by code that promises
//! a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use crate::clock::BootInstant;

/// How far a reading may differ from the expected time: more than the duration of a poll.
pub const TOLERANCE: Duration = Duration::from_secs(2);

/// How long a step of the clock must last before it is accepted.
const STEP_CONFIRMATION: Duration = Duration::from_secs(5);

/// How long after a step the age of timestamps in the database proves nothing: after that every replica
/// has renewed its row.
const UNSETTLED: Duration = Duration::from_mins(1);

/// Identifies one server between two crashes or promotions; equal only within that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Wraps the value of the database's `server_epoch`.
    #[must_use]
    pub fn parse(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the database's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The clock of one database, shared by all its users. Moments are arguments.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    accepted: Option<ClockReading>,
    /// A rejected reading, and the time since when later readings have agreed with it.
    doubted: Option<(ClockReading, BootInstant)>,
    stepped: Option<BootInstant>,
    epoch: Option<Epoch>,
}

/// A reading of the clock, and when it was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// When the reading was requested.
    pub sent: BootInstant,
    /// The database's time.
    pub time: OffsetDateTime,
}

/// The result of comparing a reading with earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockCheck {
    /// It is as expected.
    Expected,
    /// It is from another server, or from a step that has lasted: earlier readings no longer apply.
    Reset,
    /// The clock seems to have been set: not accepted yet. True for the first such reading.
    Doubted(bool),
}

impl ClockReading {
    /// Returns the clock's time at another moment, if it runs like this machine's boot clock.
    #[must_use]
    pub fn at(&self, instant: BootInstant) -> OffsetDateTime {
        self.time.saturating_add(nanoseconds(instant.boot, self.sent.boot))
    }

    fn by_wall(&self, instant: BootInstant) -> OffsetDateTime {
        self.time.saturating_add(nanoseconds(instant.wall, self.sent.wall))
    }
}

fn nanoseconds(later: i64, earlier: i64) -> time::Duration {
    time::Duration::nanoseconds(later.saturating_sub(earlier))
}

fn agree(one: OffsetDateTime, other: OffsetDateTime) -> bool {
    (one - other).unsigned_abs() <= TOLERANCE
}

/// Returns the earlier of the database's time and this machine's: a clock that is ahead must not delete what is not old,
/// nor let a token look expired that is not.
pub(super) fn earlier(database: OffsetDateTime) -> OffsetDateTime {
    database.min(crate::clock::now().truncate_to_microsecond())
}

impl Clock {
    /// Compares a reading of this server with those before it. One that differs by more than
    /// [`TOLERANCE`] is accepted once later readings have agreed with it for `STEP_CONFIRMATION`; at once if this
    /// machine's own wall clock has gone forward with it, as after a pause that the boot clock did not
    /// see. So a token that expires by a step of the clock stays VALID at most for that long.
    pub fn note(&self, reading: ClockReading, epoch: &Epoch) -> ClockCheck {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let Some(accepted) = state.accepted.filter(|_| state.epoch.as_ref() == Some(epoch)) else {
            // Timestamps in another server may be from another time than before.
            let unsettled =
                state.accepted.is_some_and(|before| !agree(before.at(reading.sent), reading.time));
            state.stepped = unsettled.then_some(reading.sent).or(state.stepped);
            state.epoch = Some(epoch.clone());
            state.accepted = Some(reading);
            state.doubted = None;
            return ClockCheck::Reset;
        };
        let expected = accepted.at(reading.sent);
        if agree(expected, reading.time) {
            state.doubted = None;
            state.accepted = Some(reading);
            return ClockCheck::Expected;
        }
        state.stepped = Some(reading.sent);
        let corroborated = reading.time > expected && agree(accepted.by_wall(reading.sent), reading.time);
        let since = match state.doubted {
            Some((doubted, since)) if agree(doubted.at(reading.sent), reading.time) => since,
            _ => reading.sent,
        };
        if corroborated || reading.sent.since(since) >= STEP_CONFIRMATION {
            state.accepted = Some(reading);
            state.doubted = None;
            return ClockCheck::Reset;
        }
        let is_first = state.doubted.replace((reading, since)).is_none();
        ClockCheck::Doubted(is_first)
    }

    /// Returns the time of a reading, or, if it is not accepted, a time that is certainly earlier.
    #[must_use]
    pub fn plausible(&self, reading: ClockReading) -> OffsetDateTime {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.accepted.map(|accepted| accepted.at(reading.sent)) {
            Some(expected) if !agree(expected, reading.time) => {
                expected.saturating_sub(TOLERANCE.try_into().unwrap_or_default())
            }
            _ => reading.time,
        }
    }

    /// Returns the time to judge by: that of a reading, or, if it is not accepted, the expected time.
    /// So every judgement agrees with Verify, which uses the feed's readings.
    #[must_use]
    pub fn accepted(&self, reading: ClockReading) -> OffsetDateTime {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.accepted.map(|accepted| accepted.at(reading.sent)) {
            // In whole microseconds, as the database returns and stores times.
            Some(expected) if !agree(expected, reading.time) => expected.truncate_to_microsecond(),
            _ => reading.time,
        }
    }

    /// Returns the clock's expected time now, for judging timestamps in the database; `None`: it is not
    /// known, or the clock was set recently.
    #[must_use]
    pub fn expected(&self, now: BootInstant) -> Option<OffsetDateTime> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stepped.is_some_and(|stepped| now.since(stepped) < UNSETTLED) {
            return None;
        }
        state.accepted.map(|accepted| accepted.at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    /// That many milliseconds after the start, by both clocks.
    fn instant(milliseconds: i64) -> BootInstant {
        let nanos = milliseconds * 1_000_000;
        BootInstant { boot: nanos, wall: nanos }
    }

    fn reading(milliseconds: i64, ahead: i64) -> ClockReading {
        let time = NOON + time::Duration::milliseconds(milliseconds + ahead);
        ClockReading { sent: instant(milliseconds), time }
    }

    fn epoch(name: &str) -> Epoch {
        Epoch::parse(name.to_owned())
    }

    /// A clock with one reading, at the start.
    fn started() -> Clock {
        let clock = Clock::default();
        assert_eq!(clock.note(reading(0, 0), &epoch("a")), ClockCheck::Reset);
        clock
    }

    #[test]
    fn a_step_in_either_direction_is_accepted_only_after_it_has_lasted() {
        for ahead in [3_600_000, -3_600_000, 2_500, -2_500] {
            let clock = started();
            assert_eq!(clock.note(reading(250, ahead), &epoch("a")), ClockCheck::Doubted(true), "{ahead}");
            for at in (500..5_250).step_by(250) {
                assert_eq!(
                    clock.note(reading(at, ahead), &epoch("a")),
                    ClockCheck::Doubted(false),
                    "{ahead} {at}"
                );
            }
            assert_eq!(clock.note(reading(5_250, ahead), &epoch("a")), ClockCheck::Reset, "{ahead}");
            assert_eq!(clock.note(reading(5_500, ahead), &epoch("a")), ClockCheck::Expected, "{ahead}");
        }
    }

    #[test]
    fn one_wrong_reading_has_no_lasting_effect() {
        let clock = started();
        assert_eq!(clock.note(reading(250, 3_600_000), &epoch("a")), ClockCheck::Doubted(true));
        assert_eq!(clock.note(reading(500, 0), &epoch("a")), ClockCheck::Expected);
        assert_eq!(clock.note(reading(6_000, 3_600_000), &epoch("a")), ClockCheck::Doubted(true));
        // Readings that do not agree with each other are never accepted.
        for at in (6_250..60_000).step_by(250) {
            let noted = clock.note(reading(at, at * 10_000), &epoch("a"));
            assert_eq!(noted, ClockCheck::Doubted(false), "{at}");
        }
    }

    #[test]
    fn a_doubted_time_is_replaced_by_the_accepted_clock() {
        assert_eq!(Clock::default().plausible(reading(0, 500)), reading(0, 500).time);
        let clock = started();
        assert_eq!(clock.plausible(reading(10_000, 500)), reading(10_000, 500).time);
        for ahead in [3_600_000, -3_600_000] {
            assert_eq!(clock.plausible(reading(10_000, ahead)), NOON + time::Duration::seconds(8));
        }
    }

    #[test]
    fn small_differences_are_accepted_at_once() {
        let clock = started();
        for (at, ahead) in [(250, 900), (500, -900), (750, 100)] {
            assert_eq!(clock.note(reading(at, ahead), &epoch("a")), ClockCheck::Expected);
        }
    }

    #[test]
    fn a_pause_that_the_boot_clock_missed_is_accepted_if_the_wall_clock_agrees() {
        let clock = started();
        let hour = 3_600_000;
        let mut paused = reading(250, hour);
        paused.sent.wall += hour * 1_000_000;
        assert_eq!(clock.note(paused, &epoch("a")), ClockCheck::Reset);
        // Backwards, the wall clock does not count: it would revive what has expired.
        let mut back = reading(500, 0);
        back.sent.wall = instant(500).wall;
        assert_eq!(clock.note(back, &epoch("a")), ClockCheck::Doubted(true));
    }

    #[test]
    fn another_server_is_accepted_at_once() {
        let clock = started();
        assert_eq!(clock.note(reading(250, -3_600_000), &epoch("b")), ClockCheck::Reset);
        assert_eq!(clock.note(reading(500, -3_600_000), &epoch("b")), ClockCheck::Expected);
    }

    #[test]
    fn no_time_is_expected_before_the_first_reading_and_for_a_minute_after_a_step() {
        assert_eq!(Clock::default().expected(instant(0)), None);
        let clock = started();
        assert_eq!(clock.expected(instant(1_000)), Some(NOON + time::Duration::SECOND));
        clock.note(reading(2_000, 3_600_000), &epoch("a"));
        assert_eq!(clock.expected(instant(2_000)), None);
        clock.note(reading(3_000, 0), &epoch("a"));
        assert_eq!(clock.expected(instant(61_000)), None);
        assert!(clock.expected(instant(62_000)).is_some());
    }
}
