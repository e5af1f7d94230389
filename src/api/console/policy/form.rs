//! The form of a policy as it was typed, and what it means. Pure functions, used by its page.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::api::console::commands::{Call, Lines};
use crate::api::console::form::{Fields, Problems, optional};
use crate::api::console::moments::machine;
use crate::domain::policy::{MAX_GRACE, Policy, StoredPolicy};
use crate::domain::{FieldError, PlanName, Scope, Scopes};

/// The longest lifetime that can be typed: a hundred years.
pub(in crate::api::console) const MAX_LIFETIME: Duration = Duration::days(36_500);

/// The most tokens of a user that can be typed.
const MAX_TOKENS: u32 = 1_000_000;

/// The units of a duration, the longest first.
const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A policy as it was typed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PolicyForm {
    pub(super) organization: String,
    pub(super) lifetime: String,
    pub(super) required: bool,
    pub(super) grace: String,
    pub(super) most: String,
    pub(super) scopes: String,
    pub(super) reuse: bool,
    pub(super) plan_required: bool,
    pub(super) default_plan: String,
    /// When the policy was set from which the form was made; empty: never.
    pub(super) based_on: String,
}

impl PolicyForm {
    pub(super) fn stored(organization: &str, stored: &StoredPolicy) -> Self {
        let policy = &stored.policy;
        let duration = |duration: Option<Duration>| duration.map(duration_text).unwrap_or_default();
        let scopes: Vec<&str> = policy.allowed_scopes.iter().map(Scope::as_str).collect();
        Self {
            organization: organization.to_owned(),
            lifetime: duration(policy.longest_lifetime),
            required: policy.expiration_required,
            grace: duration(policy.longest_grace),
            most: policy.most_active_tokens.map(|most| most.to_string()).unwrap_or_default(),
            scopes: scopes.join(" "),
            reuse: policy.reuse_detection,
            plan_required: policy.plan_required,
            default_plan: policy.default_plan.as_ref().map_or("", PlanName::as_str).to_owned(),
            based_on: mark(stored.update_time),
        }
    }

    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self {
            organization: fields.get("organization").to_owned(),
            lifetime: fields.typed("lifetime"),
            required: !fields.get("required").is_empty(),
            grace: fields.typed("grace"),
            most: fields.typed("most"),
            scopes: fields.typed("scopes"),
            reuse: !fields.get("reuse").is_empty(),
            plan_required: !fields.get("plan_required").is_empty(),
            default_plan: fields.typed("default_plan"),
            based_on: fields.typed("based_on"),
        }
    }

    /// Parses the policy.
    ///
    /// # Errors
    /// All fields that are not valid.
    pub(super) fn parse(&self) -> Result<Policy, Problems> {
        const COUNT: FieldError = FieldError::Rule("is not a number from 1 to 1000000");
        let mut problems = Problems::default();
        let lifetime = optional(&self.lifetime, |text| duration(text, Duration::SECOND, MAX_LIFETIME));
        let longest_lifetime = problems.take("lifetime", lifetime, "This time");
        let grace = optional(&self.grace, |text| duration(text, Duration::ZERO, MAX_GRACE));
        let longest_grace = problems.take("grace", grace, "This time");
        let most = optional(&self.most, |text| {
            text.parse().ok().filter(|most| (1..=MAX_TOKENS).contains(most)).ok_or(COUNT)
        });
        let most_active_tokens = problems.take("most", most, "This");
        let words = self.scopes.split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty());
        let scopes: Result<Vec<Scope>, _> = words.map(Scope::parse).collect();
        let allowed_scopes = problems.take("scopes", scopes.and_then(Scopes::new), "This list of scopes");
        let default_plan =
            problems.take("default_plan", optional(&self.default_plan, PlanName::parse), "This plan");
        let policy = (|| {
            Some(Policy {
                longest_lifetime: longest_lifetime?,
                expiration_required: self.required,
                longest_grace: longest_grace?,
                most_active_tokens: most_active_tokens?,
                allowed_scopes: allowed_scopes?,
                reuse_detection: self.reuse,
                plan_required: self.plan_required,
                default_plan: default_plan?,
            })
        })();
        policy.ok_or(problems)
    }

    /// Returns the commands that check it, and then save it.
    pub(super) fn lines(&self, organization: &str, policy: &Policy) -> Lines {
        let [check, save] = [("dry-run", "CheckPolicy"), ("set", "UpdatePolicy")].map(|(act, method)| {
            let call =
                Call::new(&["policy", act], method).text("organization", "organizationId", organization);
            self.flags(call, policy).set("policy", message(policy)).lines()
        });
        check.then(&save)
    }

    fn flags(&self, call: Call, policy: &Policy) -> Call {
        let given = [
            ("longest-lifetime", &self.lifetime),
            ("longest-grace", &self.grace),
            ("most-active-tokens-per-user", &self.most),
            ("default-plan", &self.default_plan),
        ];
        let given = given.into_iter().filter(|(_, value)| !value.is_empty());
        let call = given.fold(call, |call, (flag, value)| call.flag(flag, Some(value)));
        let set = [
            ("expiration-required", self.required),
            ("reuse-detection", self.reuse),
            ("plan-required", self.plan_required),
        ];
        let call =
            set.into_iter().filter(|(_, set)| *set).fold(call, |call, (flag, _)| call.flag(flag, None));
        policy
            .allowed_scopes
            .iter()
            .fold(call, |call, scope| call.flag("allowed-scope", Some(scope.as_str())))
    }
}

/// Returns the message `Policy` with what a policy limits.
fn message(policy: &Policy) -> Value {
    let seconds = |duration: Duration| Value::from(format!("{}s", duration.whole_seconds()));
    let scopes: Vec<&str> = policy.allowed_scopes.iter().map(Scope::as_str).collect();
    let fields = [
        ("longestLifetime", policy.longest_lifetime.map(seconds)),
        ("expirationRequired", Some(true.into()).filter(|_| policy.expiration_required)),
        ("longestGrace", policy.longest_grace.map(seconds)),
        ("mostActiveTokensPerUser", policy.most_active_tokens.map(Value::from)),
        ("allowedScopes", Some(scopes).filter(|scopes| !scopes.is_empty()).map(Value::from)),
        ("reuseDetection", Some(true.into()).filter(|_| policy.reuse_detection)),
        ("planRequired", Some(true.into()).filter(|_| policy.plan_required)),
        ("defaultPlan", policy.default_plan.as_ref().map(|name| name.as_str().into())),
    ];
    let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
    Value::Object(given.collect())
}

/// Returns the text that marks which version of a policy a form was made from.
pub(super) fn mark(update_time: Option<OffsetDateTime>) -> String {
    update_time.map(machine).unwrap_or_default()
}

/// Parses a time such as `90d`, `12h`, `30m` or `45s`.
pub(in crate::api::console) fn duration(
    text: &str,
    shortest: Duration,
    longest: Duration,
) -> Result<Duration, FieldError> {
    const NONE: FieldError = FieldError::Rule("is not one such as 90d, 12h, 30m or 45s");
    const BOUNDS: FieldError = FieldError::Rule("is too short or too long");
    let unit = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or(NONE)?;
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NONE);
    }
    let seconds = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit.1)).ok_or(BOUNDS)?;
    let duration = Duration::seconds(seconds);
    if (shortest..=longest).contains(&duration) { Ok(duration) } else { Err(BOUNDS) }
}

/// Returns a duration in its longest unit.
pub(in crate::api::console) fn duration_text(duration: Duration) -> String {
    let seconds = duration.whole_seconds();
    let whole = |each: i64| seconds.checked_rem(each) == Some(0) && seconds != 0;
    let (unit, each) = UNITS.into_iter().find(|(_, each)| whole(*each)).unwrap_or(('s', 1));
    format!("{}{unit}", seconds.checked_div(each).unwrap_or(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_policy_is_the_one_that_its_form_means() {
        let policy = Policy {
            longest_lifetime: Some(Duration::days(90)),
            expiration_required: true,
            longest_grace: Some(Duration::ZERO),
            most_active_tokens: Some(10),
            allowed_scopes: Scopes::new(vec![Scope::parse("repo:*").unwrap()]).unwrap(),
            reuse_detection: true,
            plan_required: true,
            default_plan: PlanName::parse("free").ok(),
        };
        for policy in [policy, Policy { longest_grace: Some(Duration::seconds(90)), ..Policy::default() }] {
            let stored = StoredPolicy { policy: policy.clone(), ..StoredPolicy::default() };
            let form = PolicyForm::stored("acme", &stored);
            assert_eq!(form.parse().unwrap(), policy, "{form:?}");
        }
    }

    #[test]
    fn every_field_that_is_not_valid_is_named() {
        for lifetime in ["90", "d", "-1d", "1.5d", "0s", "999999999999999999d", "36501d", "1w"] {
            let form = PolicyForm {
                lifetime: lifetime.to_owned(),
                grace: "31d".to_owned(),
                most: "0".to_owned(),
                scopes: "NO".to_owned(),
                ..PolicyForm::default()
            };
            let problems = form.parse().unwrap_err();
            let fields: Vec<_> = problems.all().iter().map(|(field, _)| *field).collect();
            assert_eq!(fields, ["lifetime", "grace", "most", "scopes"], "{lifetime}");
        }
    }
}
