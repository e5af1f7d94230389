//! Times and durations on the command line. Errors repeat nothing of the input.

use prost_types::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::api::proto::timestamp;
use crate::clock;
use crate::config::{DurationProblem, parse_duration};

pub(super) fn parse_ttl(text: &str) -> Result<prost_types::Duration, DurationProblem> {
    parse_duration(text)?.try_into().map_err(|_| DurationProblem::Malformed)
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, &'static str> {
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.map(timestamp).map_err(|_| "expected date, time and zone, such as 2030-01-31T00:00:00Z")
}

/// Parses a time, or how long ago it was.
pub(super) fn parse_past(text: &str) -> Result<Timestamp, String> {
    time(text, OffsetDateTime::checked_sub, "how long ago, such as 90d")
}

/// Parses a time, or how far ahead it is.
pub(super) fn parse_future(text: &str) -> Result<Timestamp, String> {
    time(text, OffsetDateTime::checked_add, "how far ahead, such as 30d")
}

fn time(
    text: &str,
    from_now: impl Fn(OffsetDateTime, Duration) -> Option<OffsetDateTime>,
    expected: &str,
) -> Result<Timestamp, String> {
    let time = match parse_duration(text) {
        Ok(length) => Duration::try_from(length).ok().and_then(|length| from_now(clock::now(), length)),
        Err(problem @ DurationProblem::Calendar) => return Err(problem.to_string()),
        Err(DurationProblem::Malformed) => OffsetDateTime::parse(text, &Rfc3339).ok(),
    };
    time.map(timestamp)
        .ok_or_else(|| format!("expected {expected}, or date, time and zone, such as 2030-01-31T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_a_distance_from_now() {
        let now = clock::now().unix_timestamp();
        let near = |time: Timestamp, distance: i64| (time.seconds - now - distance).abs() < 60;
        assert!(near(parse_past("90d").unwrap(), -90 * 86_400));
        assert!(near(parse_future("1h30m").unwrap(), 5400));
        let date = Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 };
        assert_eq!(parse_past("2023-11-14T23:13:20.5+01:00"), Ok(date));
        assert_eq!(parse_future("2023-11-14T23:13:20.5+01:00"), Ok(date));
        for text in ["", "canary", "2030-01-31", "99999999999d"] {
            let message = parse_past(text).unwrap_err();
            assert!(message.contains("90d") && message.contains("2030-01-31T00:00:00Z"), "{message}");
            assert!(!message.contains("canary"));
        }
        assert!(parse_past("1M").unwrap_err().contains("not equally long"));
    }
}
