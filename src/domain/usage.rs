//! What is counted of verifications: before it is added to the database, and as it is read. Made by the counters,
//! written and read by the store, asked for by the action. Knows no SQL and no clock.

use time::{Duration, OffsetDateTime, Time};

use super::token::LastRefusal;
use super::{FieldError, OrganizationId, OwnerKind, UserId, Verdict};
use crate::secret::TokenId;

/// How often one token got one verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseCount {
    /// The token.
    pub id: TokenId,
    /// Its organization.
    pub organization_id: OrganizationId,
    /// The verdict.
    pub verdict: Verdict,
    /// The first time that was counted; the count belongs to its hour.
    pub time: OffsetDateTime,
    /// How often; 0: the token was used, but not verified.
    pub verifications: u64,
    /// The last one, if it is a refusal.
    pub refusal: Option<LastRefusal>,
}

impl UseCount {
    /// Returns whether the token was used, not refused.
    #[must_use]
    pub fn is_use(&self) -> bool {
        self.verdict == Verdict::Valid
    }

    /// Returns the number that the contract has for the verdict.
    #[must_use]
    pub fn verdict_number(&self) -> i16 {
        number(self.verdict)
    }
}

/// Returns the number that the contract has for a verdict.
#[must_use]
pub fn number(verdict: Verdict) -> i16 {
    match verdict {
        Verdict::Valid => 1,
        Verdict::Malformed => 2,
        Verdict::NotFound => 3,
        Verdict::Revoked => 4,
        Verdict::Expired => 5,
        Verdict::Disabled => 6,
        Verdict::MissingScope => 7,
        Verdict::IpNotAllowed => 8,
        Verdict::RateLimited => 9,
        Verdict::CreditsExhausted => 10,
        _ => 0,
    }
}

/// The most hours or days that one call asks for.
pub const MAX_STEPS: i64 = 1000;

/// The most tokens of one call that are named with their counts.
pub const MAX_TOP_TOKENS: u32 = 100;

/// How long one count of an answer lasts: in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// Whose verifications are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageScope {
    /// One token's.
    Token(TokenId),
    /// Those of a user's tokens that are stored; of any kind if none is named.
    User(OrganizationId, UserId, Option<OwnerKind>),
    /// An organization's.
    Organization(OrganizationId),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Whose.
    pub scope: UsageScope,
    /// By hour or by day.
    pub step: Step,
    /// The range.
    pub range: UsageRange,
    /// How many of the tokens with the most verifications are named.
    pub top: u32,
}

/// Whole hours or days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageRange {
    /// The first moment.
    pub start: OffsetDateTime,
    /// The first moment after it.
    pub end: OffsetDateTime,
}

/// How often one verdict was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictCount {
    /// The number of the verdict in the contract.
    pub verdict: i16,
    /// How often.
    pub verifications: u64,
}

/// The counts of one hour or day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePoint {
    /// Its first moment.
    pub start: OffsetDateTime,
    /// By verdict.
    pub counts: Vec<VerdictCount>,
}

/// A token with its counts in the whole range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUsage {
    /// The token.
    pub id: TokenId,
    /// Its name and owner; `None`: it was deleted.
    pub named: Option<(String, String, OwnerKind)>,
    /// By verdict.
    pub counts: Vec<VerdictCount>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageAnswer {
    /// The oldest first; an hour or day without verifications is left out.
    pub points: Vec<UsagePoint>,
    /// The one with the most verifications first.
    pub top: Vec<TokenUsage>,
}

impl Step {
    /// Returns how long it lasts.
    #[must_use]
    pub fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::HOUR,
            Self::Day => Duration::DAY,
        }
    }

    /// Returns its first moment.
    #[must_use]
    fn begin(self, time: OffsetDateTime) -> OffsetDateTime {
        let time = time.to_offset(time::UtcOffset::UTC);
        match self {
            Self::Hour => time.replace_time(Time::from_hms(time.hour(), 0, 0).unwrap_or(Time::MIDNIGHT)),
            Self::Day => time.replace_time(Time::MIDNIGHT),
        }
    }
}

impl UsageRange {
    /// Returns the whole steps that the times touch. Without an end it ends with the step of `now`; without a start, it
    /// begins 24 hours or 30 days before its end.
    ///
    /// # Errors
    /// What is wrong with the start: it is not before the end, or the steps are too many.
    pub fn new(
        step: Step,
        start: Option<OffsetDateTime>,
        end: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<Self, FieldError> {
        const LATEST: FieldError = FieldError::Rule("is too late a time");
        let last = match end {
            // The end itself is not included.
            Some(end) => end.checked_sub(Duration::NANOSECOND).ok_or(LATEST)?,
            None => now,
        };
        let end = step.begin(last).checked_add(step.length()).ok_or(LATEST)?;
        let usual = match step {
            Step::Hour => Duration::DAY,
            Step::Day => Duration::days(30),
        };
        let start = match start {
            Some(start) => step.begin(start),
            None => end.checked_sub(usual).ok_or(LATEST)?,
        };
        if start >= end {
            return Err(FieldError::Rule("is not before end_time"));
        }
        let range = Self { start, end };
        if range.steps(step) > MAX_STEPS {
            return Err(FieldError::Rule(match step {
                Step::Hour => "is more than 1000 hours before end_time: choose days, or a later time",
                Step::Day => "is more than 1000 days before end_time: choose a later time",
            }));
        }
        Ok(range)
    }

    /// Returns how many steps it has.
    #[must_use]
    pub fn steps(&self, step: Step) -> i64 {
        self.number(self.end, step)
    }

    /// Returns the number of the step that begins at a time: 0 for the first one.
    #[must_use]
    pub fn number(&self, time: OffsetDateTime, step: Step) -> i64 {
        let seconds = time.unix_timestamp().saturating_sub(self.start.unix_timestamp());
        seconds.checked_div(step.length().whole_seconds()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn range(
        step: Step,
        start: Option<OffsetDateTime>,
        end: Option<OffsetDateTime>,
    ) -> Result<UsageRange, String> {
        let now = datetime!(2024-02-29 23:59:59.9 UTC);
        UsageRange::new(step, start, end, now).map_err(|error| error.to_string())
    }

    #[test]
    fn a_range_is_whole_steps_in_utc_that_touch_the_times() {
        let last_day =
            UsageRange { start: datetime!(2024-02-29 00:00 UTC), end: datetime!(2024-03-01 00:00 UTC) };
        assert_eq!(range(Step::Hour, None, None), Ok(last_day));
        let month = UsageRange { start: datetime!(2024-01-31 00:00 UTC), ..last_day };
        assert_eq!(range(Step::Day, None, None), Ok(month));
        // An end at the beginning of a step does not include it; other offsets count as UTC.
        let (start, end) = (datetime!(2024-02-29 01:30 +01:00), datetime!(2024-03-01 01:00 +01:00));
        assert_eq!(range(Step::Hour, Some(start), Some(end)), Ok(last_day));
        assert_eq!(range(Step::Day, Some(start), Some(end)), Ok(last_day));
        let day = datetime!(2024-02-29 12:00 UTC);
        assert_eq!(range(Step::Day, Some(day), Some(day)), Ok(last_day));
    }

    #[test]
    fn a_range_has_at_most_a_thousand_steps_and_ends_after_it_begins() {
        let end = datetime!(2024-03-01 00:00 UTC);
        for (step, length) in [(Step::Hour, Duration::HOUR), (Step::Day, Duration::DAY)] {
            let first = end - length * 1000;
            assert_eq!(range(step, Some(first), Some(end)), Ok(UsageRange { start: first, end }));
            let refused = range(step, Some(first - Duration::SECOND), Some(end)).unwrap_err();
            assert!(refused.contains("1000"), "{refused}");
            assert!(range(step, Some(end), Some(end - Duration::DAY)).is_err());
        }
        // The ends of time are no panic.
        let (first, last) = (datetime!(0001-01-01 00:00 UTC), datetime!(9999-12-31 23:59:59.999_999 UTC));
        for step in [Step::Hour, Step::Day] {
            assert!(range(step, Some(first), Some(last)).is_err());
            assert!(range(step, None, Some(first)).is_ok() || range(step, None, Some(first)).is_err());
            assert!(range(step, Some(last), Some(last)).is_err());
        }
    }
}
