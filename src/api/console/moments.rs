//! Times as people read them: how far away, with the exact moment beside it. Pure functions; the reader's own
//! zone is added by the page's script.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

/// A time, ready to be shown.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// For machines, RFC 3339, to the second.
    pub(super) machine: String,
    /// In UTC, to the second.
    pub(super) exact: String,
    /// As in "in 3 days".
    pub(super) relative: String,
}

impl Moment {
    pub(super) fn new(time: OffsetDateTime, now: OffsetDateTime) -> Self {
        let machine = machine(time.replace_nanosecond(0).unwrap_or(time));
        Self { machine, exact: exact(time), relative: relative(time, now) }
    }
}

pub(super) fn machine(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// Returns the moment in UTC, to the second.
pub(super) fn exact(time: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.format(form).unwrap_or_default()
}

/// Returns the moment in UTC, to the millisecond, rounded up: a promise must not come early.
pub(super) fn to_the_millisecond(time: OffsetDateTime) -> String {
    let form = format_description!("[hour]:[minute]:[second].[subsecond digits:3] UTC");
    let up = time.saturating_add(Duration::nanoseconds(999_999));
    up.format(form).unwrap_or_default()
}

/// Returns how far away a time is, in the largest unit of which there are two; days up to two months.
pub(super) fn relative(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = time.unix_timestamp().saturating_sub(now.unix_timestamp());
    let away = seconds.unsigned_abs();
    let number = match away {
        0..45 => return if seconds < 5 { "just now" } else { "in a moment" }.to_owned(),
        45..90 => "1 minute".to_owned(),
        90..5_400 => format!("{} minutes", rounded(away, 60)),
        5_400..129_600 => format!("{} hours", rounded(away, 3_600)),
        129_600..5_184_000 => format!("{} days", rounded(away, 86_400)),
        5_184_000..63_072_000 => format!("{} months", rounded(away, 2_629_746)),
        _ => format!("{} years", rounded(away, 31_556_952)),
    };
    if seconds < 0 { format!("{number} ago") } else { format!("in {number}") }
}

fn rounded(seconds: u64, unit: u64) -> u64 {
    seconds.saturating_add(unit / 2).checked_div(unit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_is_as_far_away_as_people_say() {
        let now = datetime!(2026-11-30 12:00 UTC);
        for (seconds, text) in [
            (0, "just now"),
            (30, "in a moment"),
            (-3, "just now"),
            (60, "in 1 minute"),
            (-600, "10 minutes ago"),
            (7_200, "in 2 hours"),
            (2_592_000, "in 30 days"),
            (-7_776_000, "3 months ago"),
            (31_536_000, "in 12 months"),
            (94_608_000, "in 3 years"),
        ] {
            assert_eq!(relative(now + Duration::seconds(seconds), now), text);
        }
    }

    #[test]
    fn a_promise_is_never_shown_as_earlier_than_it_is() {
        let promised = datetime!(2026-11-30 14:03:07.412_000_1 UTC);
        assert_eq!(to_the_millisecond(promised), "14:03:07.413 UTC");
        assert_eq!(to_the_millisecond(datetime!(2026-11-30 14:03:07.412 UTC)), "14:03:07.412 UTC");
    }
}
