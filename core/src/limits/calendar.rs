//! Calendar periods in UTC: when the period of a moment began.

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// How often a balance is refilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalendarPeriod {
    /// At each full hour.
    Hour,
    /// At midnight.
    Day,
    /// At midnight to Monday.
    Week,
    /// At midnight to the first day of a month.
    Month,
    /// At midnight to the first of January.
    Year,
}

impl CalendarPeriod {
    /// Returns when the period that contains `time` began.
    #[must_use]
    pub fn start(self, time: OffsetDateTime) -> OffsetDateTime {
        let time = time.to_offset(UtcOffset::UTC);
        let midnight = |date: Date| date.with_time(Time::MIDNIGHT).assume_utc();
        let first = |month| Date::from_calendar_date(time.year(), month, 1).unwrap_or(time.date());
        match self {
            Self::Hour => midnight(time.date()).saturating_add(time::Duration::hours(time.hour().into())),
            Self::Day => midnight(time.date()),
            Self::Week => {
                let monday = i64::from(time.weekday().number_days_from_monday());
                midnight(time.date().saturating_sub(time::Duration::days(monday)))
            }
            Self::Month => midnight(first(time.month())),
            Self::Year => midnight(first(Month::January)),
        }
    }

    /// Returns when the period after that of `time` begins.
    #[must_use]
    pub fn next(self, time: OffsetDateTime) -> OffsetDateTime {
        let start = self.start(time);
        // From any start, this is within the next period and not beyond it.
        let inside_next = match self {
            Self::Hour => time::Duration::hours(1),
            Self::Day => time::Duration::days(1),
            Self::Week => time::Duration::days(7),
            Self::Month => time::Duration::days(31),
            Self::Year => time::Duration::days(366),
        };
        self.start(start.saturating_add(inside_next))
    }

    /// Returns how many periods have begun after that of `earlier`, up to that of `later`.
    #[must_use]
    pub fn begun_between(self, earlier: OffsetDateTime, later: OffsetDateTime) -> i64 {
        let (earlier, later) = (self.start(earlier), self.start(later));
        let days = i64::from(later.to_julian_day()).saturating_sub(i64::from(earlier.to_julian_day()));
        let months = |time: OffsetDateTime| {
            i64::from(time.year()).saturating_mul(12).saturating_add(i64::from(u8::from(time.month())))
        };
        let begun = match self {
            Self::Hour => later.unix_timestamp().saturating_sub(earlier.unix_timestamp()).checked_div(3_600),
            Self::Day => Some(days),
            Self::Week => days.checked_div(7),
            Self::Month => Some(months(later).saturating_sub(months(earlier))),
            Self::Year => Some(i64::from(later.year()).saturating_sub(earlier.year().into())),
        };
        begun.unwrap_or(0).max(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const ALL: [CalendarPeriod; 5] = [
        CalendarPeriod::Hour,
        CalendarPeriod::Day,
        CalendarPeriod::Week,
        CalendarPeriod::Month,
        CalendarPeriod::Year,
    ];

    #[test]
    fn periods_begin_in_utc_and_know_leap_days() {
        let leap = datetime!(2028-02-29 23:59:59.999 UTC);
        assert_eq!(CalendarPeriod::Hour.start(leap), datetime!(2028-02-29 23:00 UTC));
        assert_eq!(CalendarPeriod::Day.next(leap), datetime!(2028-03-01 00:00 UTC));
        assert_eq!(CalendarPeriod::Week.start(leap), datetime!(2028-02-28 00:00 UTC));
        assert_eq!(CalendarPeriod::Month.next(leap), datetime!(2028-03-01 00:00 UTC));
        assert_eq!(CalendarPeriod::Year.next(leap), datetime!(2029-01-01 00:00 UTC));
        let elsewhere = datetime!(2028-03-01 00:30 +01:00);
        assert_eq!(CalendarPeriod::Month.start(elsewhere), datetime!(2028-02-01 00:00 UTC));
    }

    #[test]
    fn a_month_after_the_31st_is_the_next_month() {
        let end = datetime!(2027-01-31 12:00 UTC);
        assert_eq!(CalendarPeriod::Month.next(end), datetime!(2027-02-01 00:00 UTC));
        assert_eq!(CalendarPeriod::Month.begun_between(end, datetime!(2027-02-28 23:59 UTC)), 1);
        assert_eq!(CalendarPeriod::Month.begun_between(end, datetime!(2028-03-01 00:00 UTC)), 14);
    }

    proptest! {
        #[test]
        fn periods_follow_each_other(seconds in -2_000_000_000_i64..20_000_000_000, index in 0..5_usize) {
            let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let period = ALL[index];
            let (start, next) = (period.start(time), period.next(time));
            prop_assert!(start <= time && time < next);
            prop_assert_eq!(period.start(start), start);
            prop_assert_eq!(period.start(next), next);
            prop_assert_eq!(period.begun_between(time, next - time::Duration::nanoseconds(1)), 0);
            prop_assert_eq!(period.begun_between(time, next), 1);
            prop_assert_eq!(period.begun_between(next, time), 0);
        }
    }
}
