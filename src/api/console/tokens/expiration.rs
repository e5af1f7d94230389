//! The choice of an expiration: as it was made in a form, and what a form offers. Pure functions, used by the forms
//! for a new token, for a rotation and for a change.

use time::format_description::well_known::Iso8601;
use time::{Duration, OffsetDateTime, Time};

use super::list_query::start_of_day;
use crate::api::console::commands::Call;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::moments::{Moment, machine};
use crate::domain::policy::Policy;
use crate::domain::{Expiration, FieldError};

/// The lifetimes to choose from, in days.
const PRESETS: [i64; 5] = [7, 30, 60, 90, 365];

/// The choice that leaves an expiration as it is.
pub(super) const KEEP: &str = "keep";

const MISSING: &str = "Choose when the token expires, or that it never does.";

/// The choice as it was made.
#[derive(Debug, Default, Clone)]
pub(super) struct ExpirationChoice {
    /// A number with its unit, such as `30d`; `date`, `never`, `keep`, or nothing yet.
    pub(super) choice: String,
    pub(super) date: String,
    pub(super) time: String,
}

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChosenExpiration {
    /// It stays as it is.
    Kept,
    New(Expiration),
}

impl ChosenExpiration {
    /// Returns the new expiration; `None`: it stays.
    pub(super) fn expiration(self) -> Option<Expiration> {
        match self {
            Self::Kept => None,
            Self::New(expiration) => Some(expiration),
        }
    }
}

/// A lifetime that a form offers.
#[derive(Debug)]
pub(super) struct OfferedLifetime {
    pub(super) value: String,
    pub(super) words: String,
    pub(super) end: Moment,
    /// Whether the policy allows it only for tokens that it does not bind.
    pub(super) unbound: bool,
}

/// What a form offers.
#[derive(Debug)]
pub(super) struct ExpirationOptions {
    pub(super) offers: Vec<OfferedLifetime>,
    /// In words, what leaving it means; `None`: it has to be chosen.
    pub(super) keep: Option<String>,
    /// The first and the last date that can be chosen.
    pub(super) dates: (String, String),
    /// Whether "No expiration" is offered, and whether only for tokens that the policy does not bind.
    pub(super) never: Option<bool>,
    /// What the policy says of it.
    pub(super) rule: Option<String>,
}

impl ExpirationChoice {
    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self { choice: fields.typed("expiration"), date: fields.typed("date"), time: fields.typed("time") }
    }

    /// Returns a choice that leaves an expiration as it is.
    pub(super) fn kept() -> Self {
        Self { choice: KEEP.to_owned(), ..Self::default() }
    }

    /// Parses the choice of an expiration, where it cannot stay as it is.
    pub(super) fn required(&self, problems: &mut Problems) -> Option<Expiration> {
        let parsed = self.parse(problems)?;
        if parsed == ChosenExpiration::Kept {
            problems.add("expiration", MISSING);
        }
        parsed.expiration()
    }

    /// Parses the choice.
    pub(super) fn parse(&self, problems: &mut Problems) -> Option<ChosenExpiration> {
        match (&*self.choice, lifetime(&self.choice)) {
            (KEEP, _) => Some(ChosenExpiration::Kept),
            (_, Some(lifetime)) => Some(ChosenExpiration::New(Expiration::After(lifetime))),
            ("never", _) => Some(ChosenExpiration::New(Expiration::Never)),
            ("date", _) => problems
                .take("date", moment(&self.date, &self.time), "The date")
                .map(|end| ChosenExpiration::New(Expiration::At(end))),
            _ => {
                problems.add("expiration", MISSING);
                None
            }
        }
    }

    /// Adds the choice to the lines for a shell; `missing`, if none was made.
    pub(super) fn said(&self, call: Call, missing: &str) -> Call {
        let chosen = if self.choice.is_empty() { missing } else { &self.choice };
        match (chosen, lifetime(chosen), moment(&self.date, &self.time)) {
            (_, Some(lifetime), _) => {
                let seconds = format!("{}s", lifetime.whole_seconds());
                call.flag("ttl", Some(chosen)).set("ttl", seconds.into())
            }
            ("never", _, _) => call.flag("no-expiration", None).set("noExpiration", true.into()),
            ("date", _, Ok(end)) => call.text("expire-time", "expireTime", &machine(end)),
            _ => call,
        }
    }

    /// Returns the field that a refused expiration belongs to.
    pub(super) fn field(&self) -> &'static str {
        if self.choice == "date" { "date" } else { "expiration" }
    }
}

impl ExpirationOptions {
    /// Returns what is offered at `now` for a token that was created at `created`, under a policy. Beyond it, what
    /// it does not bind is offered to those who may create such tokens.
    pub(super) fn new(
        policy: &Policy,
        (created, now): (OffsetDateTime, OffsetDateTime),
        may_be_unbound: bool,
    ) -> Self {
        let age = Duration::seconds(now.unix_timestamp().saturating_sub(created.unix_timestamp()));
        let longest = policy.longest_lifetime.map(|longest| longest.saturating_sub(age));
        let beyond = |lifetime: Duration| longest.is_some_and(|longest| lifetime > longest);
        let offer = |(value, words, lifetime): (String, String, Duration)| OfferedLifetime {
            value,
            words,
            end: Moment::new(now.saturating_add(lifetime), now),
            unbound: beyond(lifetime),
        };
        let mut choices: Vec<_> = PRESETS
            .into_iter()
            .map(|days| (format!("{days}d"), format!("{days} days"), Duration::days(days)))
            .collect();
        // The longest one, for a token that is created now: of another, that would be another moment each time.
        if let Some(longest) = policy.longest_lifetime.filter(|_| created == now)
            && !choices.iter().any(|(_, _, lifetime)| *lifetime == longest)
        {
            let words = format!("{}, the longest", in_words(longest));
            choices.push((format!("{}s", longest.whole_seconds()), words, longest));
            choices.sort_by_key(|(_, _, lifetime)| *lifetime);
        }
        let offers = choices.into_iter().map(offer).filter(|offer| may_be_unbound || !offer.unbound);
        let date = |time: OffsetDateTime| time.date().to_string();
        let latest =
            longest.filter(|_| !may_be_unbound).map_or_else(String::new, |l| date(now.saturating_add(l)));
        let needed = policy.expiration_required || longest.is_some();
        Self {
            offers: offers.collect(),
            keep: None,
            dates: (date(now), latest),
            never: (may_be_unbound || !needed).then_some(needed),
            rule: rule(policy),
        }
    }

    /// Also offers to leave it as it is.
    pub(super) fn or_keep(self, words: String) -> Self {
        Self { keep: Some(words), ..self }
    }
}

fn rule(policy: &Policy) -> Option<String> {
    match policy.longest_lifetime {
        Some(longest) => Some(format!("The organization's policy allows at most {}.", in_words(longest))),
        None => {
            policy.expiration_required.then(|| "The organization's policy requires an expiration.".to_owned())
        }
    }
}

/// Returns the duration in the largest unit of which it is a multiple.
pub(super) fn in_words(duration: Duration) -> String {
    let seconds = duration.whole_seconds();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (unit, word) =
        units.into_iter().find(|(unit, _)| seconds.checked_rem(*unit) == Some(0)).unwrap_or((1, "second"));
    let number = seconds.checked_div(unit).unwrap_or_default();
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Reads a lifetime in days or seconds, such as `30d`.
pub(super) fn lifetime(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "d" => 86_400,
        "s" => 1,
        _ => return None,
    };
    let digits = !number.is_empty() && number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = number.parse().ok().filter(|number| digits && *number > 0)?;
    Some(Duration::seconds(number.checked_mul(seconds)?))
}

/// Returns the moment of a date and a time of day in UTC; without a time, the last minute of the day.
pub(super) fn moment(date: &str, time: &str) -> Result<OffsetDateTime, FieldError> {
    const NO_TIME: FieldError = FieldError::Rule("has a time that is not one such as 18:30");
    if date.is_empty() {
        return Err(FieldError::Rule("is missing: choose one"));
    }
    let day = start_of_day(date)?;
    let time = if time.is_empty() { "23:59" } else { time };
    let time = Time::parse(time, &Iso8601::TIME).map_err(|_| NO_TIME)?;
    Ok(day.replace_time(time))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-30 12:00 UTC);

    fn words(expiration_options: &ExpirationOptions) -> Vec<&str> {
        expiration_options.offers.iter().map(|offer| &*offer.words).collect()
    }

    #[test]
    fn only_what_the_policy_allows_is_offered() {
        let all = ExpirationOptions::new(&Policy::default(), (NOW, NOW), false);
        assert_eq!((words(&all).len(), all.never, all.rule), (5, Some(false), None));
        let policy = Policy { longest_lifetime: Some(Duration::days(45)), ..Policy::default() };
        let some = ExpirationOptions::new(&policy, (NOW, NOW), false);
        assert_eq!(words(&some), ["7 days", "30 days", "45 days, the longest"]);
        assert_eq!((some.never, &*some.dates.1), (None, "2027-01-14"));
        // A lifetime counts from the creation.
        let old = ExpirationOptions::new(&policy, (NOW - Duration::days(30), NOW), false);
        assert_eq!(words(&old), ["7 days"]);
        let hours = Policy { longest_lifetime: Some(Duration::hours(12)), ..Policy::default() };
        assert_eq!(words(&ExpirationOptions::new(&hours, (NOW, NOW), false)), ["12 hours, the longest"]);
        let needed = Policy { expiration_required: true, ..Policy::default() };
        assert_eq!(ExpirationOptions::new(&needed, (NOW, NOW), false).never, None);
        // Who may create root tokens, which no policy binds, sees the rest and what it is for.
        let root = ExpirationOptions::new(&policy, (NOW, NOW), true);
        assert_eq!((root.never, root.offers.iter().filter(|offer| offer.unbound).count()), (Some(true), 3));
    }

    #[test]
    fn a_choice_is_a_lifetime_a_date_never_or_as_it_is() {
        let parsed = |choice: &str| {
            let expiration_choice = ExpirationChoice {
                choice: choice.to_owned(),
                date: "2026-12-31".to_owned(),
                time: String::new(),
            };
            expiration_choice.parse(&mut Problems::default())
        };
        assert!(
            matches!(parsed("30d"), Some(ChosenExpiration::New(Expiration::After(time))) if time == Duration::days(30))
        );
        assert!(
            matches!(parsed("43200s"), Some(ChosenExpiration::New(Expiration::After(time))) if time == Duration::hours(12))
        );
        assert!(
            parsed("keep") == Some(ChosenExpiration::Kept)
                && parsed("never") == Some(ChosenExpiration::New(Expiration::Never))
        );
        let end = datetime!(2026-12-31 23:59 UTC);
        assert!(matches!(parsed("date"), Some(ChosenExpiration::New(Expiration::At(at))) if at == end));
        for bad in ["", "d", "0d", "-1d", "+1d", "1w", "1234567890d", "\u{e9}"] {
            assert!(parsed(bad).is_none(), "{bad}");
        }
    }
}
