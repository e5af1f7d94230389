//! Plans: named sets of limits that tokens name. Text and numbers from outside are parsed here once. Knows no
//! clock, no SQL and no messages; how limits are counted is in [`crate::limits`].

use time::Duration;

use super::fields::{FieldError, OrganizationId};
use crate::limits::{Rate, Refill};

/// The maximum number of limits of one plan.
pub const MAX_LIMITS: usize = 8;

/// The largest amount of a limit: of requests, a burst, credits or a refill. It keeps sums of shares within 63 bits.
pub const MAX_AMOUNT: i64 = 1 << 53;

/// The longest period of a rate.
pub const MAX_PERIOD: Duration = Duration::days(31);

/// The name of a plan or of a limit: 1 to 63 of `a-z0-9._-`, a letter or digit first and last, so that it can be
/// in a header's field unchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanName(Box<str>);

impl PlanName {
    /// Parses a name.
    ///
    /// # Errors
    /// It is empty, too long or has another character.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        if text.len() > 63 {
            return Err(FieldError::TooLong { limit: 63, unit: "bytes" });
        }
        let ends = is_outer(bytes.first()) && is_outer(bytes.last());
        if !ends || !bytes.iter().copied().all(is_inner) {
            return Err(FieldError::Rule(
                "must consist of a-z, 0-9, '.', '_' and '-', with a letter or digit first and last",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitSubject {
    /// A token and what it was rotated from and into.
    Token,
    /// All tokens of one owner that name the plan.
    User,
    /// All tokens of the organization that name the plan.
    Organization,
}

/// What happens to a rate while the database cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutageBehavior {
    /// Calls fail: not knowing is not a yes.
    #[default]
    Deny,
    /// Each replica admits the whole limit by itself.
    Admit,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// Requests per period.
    Rate {
        /// How many requests a period.
        requests: i64,
        /// The period, in whole seconds.
        period: Duration,
        /// How many at once.
        burst: i64,
        /// What happens while the database cannot be asked.
        on_outage: OutageBehavior,
    },
    /// A balance.
    Credits {
        /// The balance of a subject that has spent nothing yet.
        initial: i64,
        /// What the calendar adds; `None`: nothing.
        refill: Option<Refill>,
    },
}

/// One limit of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name, unique in the plan.
    pub name: PlanName,
    /// What it counts.
    pub per: LimitSubject,
    /// How it counts.
    pub kind: LimitKind,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The organization whose tokens can name it.
    pub organization_id: OrganizationId,
    /// Its name, unique in the organization.
    pub name: PlanName,
    limits: Vec<Limit>,
}

impl LimitKind {
    /// Creates a rate; `burst` 0: as many as `requests`.
    ///
    /// # Errors
    /// A number or the period is out of its bounds, or an empty allowance would be full again only after 100 years.
    pub fn rate(
        requests: i64,
        period: Duration,
        burst: i64,
        on_outage: OutageBehavior,
    ) -> Result<Self, FieldError> {
        if !(1..=MAX_AMOUNT).contains(&requests) {
            return Err(FieldError::Rule("needs 1 to 2^53 requests"));
        }
        if period.subsec_nanoseconds() != 0 || period < Duration::SECOND || period > MAX_PERIOD {
            return Err(FieldError::Rule("needs a period of 1 s to 31 d in whole seconds"));
        }
        if !(0..=MAX_AMOUNT).contains(&burst) {
            return Err(FieldError::Rule("needs a burst of at most 2^53; 0 is as many as the requests"));
        }
        let burst = if burst == 0 { requests } else { burst };
        let nanoseconds = i64::try_from(period.whole_nanoseconds()).ok();
        if nanoseconds.and_then(|period| Rate::new(requests, period, burst)).is_none() {
            return Err(FieldError::Rule("refills its burst only after 100 years"));
        }
        Ok(Self::Rate { requests, period, burst, on_outage })
    }

    /// Creates a balance.
    ///
    /// # Errors
    /// A number is out of its bounds.
    pub fn credits(initial: i64, refill: Option<Refill>) -> Result<Self, FieldError> {
        if !(0..=MAX_AMOUNT).contains(&initial) {
            return Err(FieldError::Rule("needs initial credits of 0 to 2^53"));
        }
        if refill.is_some_and(|refill| !(1..=MAX_AMOUNT).contains(&refill.amount)) {
            return Err(FieldError::Rule("needs a refill of 1 to 2^53"));
        }
        Ok(Self::Credits { initial, refill })
    }
}

impl Plan {
    /// Creates a plan.
    ///
    /// # Errors
    /// It has no limits or more than [`MAX_LIMITS`], or two with one name.
    pub fn new(
        organization_id: OrganizationId,
        name: PlanName,
        limits: Vec<Limit>,
    ) -> Result<Self, FieldError> {
        if limits.is_empty() {
            return Err(FieldError::Required);
        }
        if limits.len() > MAX_LIMITS {
            return Err(FieldError::TooLong { limit: MAX_LIMITS, unit: "limits" });
        }
        let twice =
            |(at, limit): (usize, &Limit)| limits.iter().take(at).any(|other| other.name == limit.name);
        if limits.iter().enumerate().any(twice) {
            return Err(FieldError::Rule("has two limits with the same name"));
        }
        Ok(Self { organization_id, name, limits })
    }

    /// Returns its limits, in the order in which they were given: 1 to [`MAX_LIMITS`].
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Returns the limit with this name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.name.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CalendarPeriod, RefillMode};
    use proptest::prelude::*;

    fn limit(name: &str) -> Limit {
        let kind = LimitKind::rate(10, Duration::MINUTE, 0, OutageBehavior::Deny).unwrap();
        Limit { name: PlanName::parse(name).unwrap(), per: LimitSubject::Token, kind }
    }

    fn plan(limits: Vec<Limit>) -> Result<Plan, FieldError> {
        let organization_id = OrganizationId::parse("acme").unwrap();
        Plan::new(organization_id, PlanName::parse("free").unwrap(), limits)
    }

    #[test]
    fn a_plan_has_one_to_eight_limits_with_different_names() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        assert_eq!(plan(vec![]), Err(FieldError::Required));
        let eight = plan(names[..8].iter().copied().map(limit).collect()).unwrap();
        assert_eq!(eight.limits().len(), 8);
        assert_eq!(eight.limit("h"), Some(&limit("h")));
        assert_eq!(eight.limit("i"), None);
        assert!(plan(names.iter().copied().map(limit).collect()).is_err());
        assert!(plan(vec![limit("a"), limit("b"), limit("a")]).is_err());
    }

    #[test]
    fn a_rate_is_within_its_bounds() {
        let rate = |requests, period, burst| LimitKind::rate(requests, period, burst, OutageBehavior::Deny);
        let burst = |kind| match kind {
            LimitKind::Rate { burst, .. } => burst,
            LimitKind::Credits { .. } => 0,
        };
        assert_eq!(rate(10, Duration::SECOND, 0).map(burst), Ok(10));
        assert_eq!(rate(10, MAX_PERIOD, 1).map(burst), Ok(1));
        for refused in [
            rate(0, Duration::SECOND, 1),
            rate(-1, Duration::SECOND, 1),
            rate(MAX_AMOUNT + 1, Duration::SECOND, 1),
            rate(1, Duration::ZERO, 1),
            rate(1, -Duration::SECOND, 1),
            rate(1, Duration::milliseconds(1_500), 1),
            rate(1, MAX_PERIOD + Duration::SECOND, 1),
            rate(1, Duration::MAX, 1),
            rate(1, Duration::SECOND, -1),
            rate(1, Duration::SECOND, MAX_AMOUNT + 1),
            rate(1, MAX_PERIOD, 2_000),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn credits_are_within_their_bounds() {
        let refill =
            |amount| Some(Refill { amount, period: CalendarPeriod::Month, mode: RefillMode::Replace });
        assert!(LimitKind::credits(0, None).is_ok(), "AddCredits fills it");
        assert!(LimitKind::credits(MAX_AMOUNT, refill(MAX_AMOUNT)).is_ok());
        for refused in [(-1, None), (MAX_AMOUNT + 1, None), (0, refill(0)), (0, refill(MAX_AMOUNT + 1))] {
            assert!(LimitKind::credits(refused.0, refused.1).is_err(), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_accepted_by_its_grammar_alone(text in "[a-z0-9._A-Zé -]{0,66}") {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let fits = (1..=63).contains(&text.len())
                && text.chars().all(inner)
                && text.starts_with(outer)
                && text.ends_with(outer);
            prop_assert_eq!(PlanName::parse(&text).is_ok(), fits);
        }
    }
}
