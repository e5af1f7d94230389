//! The headers about the limits of a token: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers)
//! and `Retry-After`. Called by the integrations; knows nothing of how limits are counted.

use std::fmt::Write as _;
use std::time::Duration;

use time::OffsetDateTime;

use crate::limits::{LimitStatus, Spending};
use crate::verify::Verification;

pub(crate) const POLICY: &str = "ratelimit-policy";
pub(crate) const STATE: &str = "ratelimit";

/// The largest integer of a structured field (RFC 9651, 3.3.1).
const MAX_INTEGER: i64 = 999_999_999_999_999;

/// The limits that an answer judged, and the database's time of that.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) spending: Box<Spending>,
    as_of: OffsetDateTime,
}

impl Limits {
    /// Takes the limits from an answer, if it has some.
    pub(crate) fn of(answer: &mut Verification) -> Option<Self> {
        Some(Self { as_of: answer.as_of?, spending: answer.spending.take()? })
    }

    /// Returns the headers that every answer about a token with these limits has.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let limits = &self.spending.limits;
        let policy = list(limits.iter().filter_map(policy));
        let state = list(limits.iter().map(|limit| state(limit, self.as_of)));
        [(POLICY, policy), (STATE, state)].into_iter().filter(|(_, value)| !value.is_empty())
    }

    /// Returns the value of `Retry-After`: never too early, and at least a second. `None`: waiting does not help.
    pub(crate) fn retry_after(&self) -> Option<String> {
        self.spending.retry_after.map(|time| whole_seconds(time).max(1).to_string())
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Returns how much a rate admits within which time. Credits have no such quota.
fn policy(limit: &LimitStatus) -> Option<String> {
    let window = whole_seconds(limit.window?);
    Some(format!("\"{}\";q={};w={window}", limit.name, integer(limit.limit)))
}

/// Returns what is left, and when that changes. The name needs no escape: it has letters, digits, dots, underscores
/// and hyphens only.
fn state(limit: &LimitStatus, as_of: OffsetDateTime) -> String {
    let mut item = format!("\"{}\";r={}", limit.name, integer(limit.remaining));
    if let Some(time) = limit.reset_time {
        let left = time.unix_timestamp_nanos().saturating_sub(as_of.unix_timestamp_nanos());
        let left = Duration::from_nanos(u64::try_from(left.max(0)).unwrap_or(u64::MAX));
        // The answer may be newer than its time.
        let left = limit.window.map_or(left, |window| left.min(window));
        let _ = write!(item, ";t={}", whole_seconds(left));
    }
    item
}

/// Rounds up, so that a client that waits for so long does not come too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add((time.subsec_nanos() > 0).into())
}

fn integer(number: i64) -> i64 {
    number.clamp(0, MAX_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::StatusKind;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn rate(name: &str) -> LimitStatus {
        LimitStatus {
            name: name.into(),
            kind: StatusKind::Rate,
            limit: 100,
            remaining: 50,
            reset_time: Some(NOW + Duration::from_millis(29_001)),
            admitted_in_outage: false,
            window: Some(Duration::from_mins(1)),
        }
    }

    fn judged(limits: Vec<LimitStatus>, retry_after: Option<Duration>) -> Limits {
        Limits { spending: Box::new(Spending { limits, retry_after }), as_of: NOW }
    }

    fn values(limits: Vec<LimitStatus>) -> Vec<(&'static str, String)> {
        judged(limits, None).headers().collect()
    }

    #[test]
    fn every_limit_is_an_item_of_both_lists_and_times_are_rounded_up() {
        let full = LimitStatus { remaining: 100, reset_time: None, ..rate("day") };
        let credits = LimitStatus {
            name: "credits".into(),
            kind: StatusKind::Credits,
            limit: 0,
            remaining: 7,
            window: None,
            ..rate("")
        };
        assert_eq!(
            values(vec![rate("reads"), full, credits]),
            [
                (POLICY, "\"reads\";q=100;w=60, \"day\";q=100;w=60".to_owned()),
                (STATE, "\"reads\";r=50;t=30, \"day\";r=100, \"credits\";r=7;t=30".to_owned()),
            ]
        );
    }

    #[test]
    fn numbers_stay_within_the_integers_of_structured_fields() {
        let past = LimitStatus {
            limit: i64::MAX,
            remaining: -1,
            reset_time: Some(NOW - Duration::from_secs(1)),
            ..rate("x")
        };
        let expected = [(POLICY, "\"x\";q=999999999999999;w=60"), (STATE, "\"x\";r=0;t=0")];
        assert_eq!(values(vec![past]), expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(values(Vec::new()), []);
    }

    #[test]
    fn retry_after_is_never_too_early() {
        for (millis, expected) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")] {
            let after = Some(Duration::from_millis(millis));
            assert_eq!(judged(Vec::new(), after).retry_after().as_deref(), Some(expected));
        }
        assert_eq!(judged(Vec::new(), None).retry_after(), None);
    }
}
