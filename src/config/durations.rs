//! Parses and formats durations, everywhere they are shown to people: in settings, flags and tables.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration. Repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DurationProblem {
    /// It uses months or years, whose lengths vary; `M` may be meant for minutes.
    #[error(
        "months and years are not equally long: write days, such as 30d or 365d, or weeks, such as 4w; a minute is 1m"
    )]
    Calendar,
    /// It is not a duration.
    #[error("expected numbers with units, such as 90d, 12h, 30m or 1h30m")]
    Malformed,
}

/// humantime's units whose length varies.
const CALENDAR_UNITS: [&str; 7] = ["M", "month", "months", "y", "yr", "year", "years"];

/// Parses a duration: numbers with the units `w`, `d`, `h`, `m`, `s`, `ms` and shorter ones.
///
/// # Errors
/// [`DurationProblem`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationProblem> {
    let units = text.split(|c: char| !c.is_alphabetic());
    if units.into_iter().any(|unit| CALENDAR_UNITS.contains(&unit)) {
        return Err(DurationProblem::Calendar);
    }
    humantime::parse_duration(text).map_err(|_| DurationProblem::Malformed)
}

/// A duration in the largest units of fixed length, such as `90d` or `1h30m`, rounded down to milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct DisplayDuration(pub Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (self.0.subsec_millis().into(), "ms"),
        ];
        if parts.iter().all(|(number, _)| *number == 0) {
            return formatter.write_str("0s");
        }
        let there = parts.iter().filter(|(number, _)| *number > 0);
        there.into_iter().try_for_each(|(number, unit)| write!(formatter, "{number}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_and_years_are_refused_in_every_spelling_and_nothing_is_repeated() {
        for text in ["1M", "1month", "2 months", "1y", "1yr", "1year", "3years", "1y 2d", "1h1M"] {
            assert_eq!(parse_duration(text), Err(DurationProblem::Calendar), "{text}");
        }
        for text in ["", "d", "1", "-1d", "1D", "1canary", "1d canary", "99999999999999999999d"] {
            let problem = parse_duration(text).unwrap_err();
            assert_eq!(problem, DurationProblem::Malformed, "{text}");
            assert!(!problem.to_string().contains("canary"));
        }
    }

    #[test]
    fn a_duration_is_rendered_in_units_of_fixed_length() {
        for (text, seconds) in
            [("90d", 7_776_000), ("1h30m", 5400), ("0s", 0), ("1d1s", 86_401), ("365d", 31_536_000)]
        {
            assert_eq!(DisplayDuration(Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(DisplayDuration(Duration::from_millis(1500)).to_string(), "1s500ms");
    }

    proptest! {
        #[test]
        fn a_rendered_value_parses_back(millis in 0..u64::from(u32::MAX) * 1000) {
            let length = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&DisplayDuration(length).to_string()), Ok(length));
        }
    }
}
