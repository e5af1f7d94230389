//! Which rules of a policy a token breaks that is there already, and the least that would bring it within them. One
//! function for the dry run and for enforcement, so that the one tells what the other does. Called by the store,
//! which reads where each token stands. Knows no clock.

use time::{Duration, OffsetDateTime};

use super::policy::{Policy, Rule};
use super::scope::Scope;
use super::token::Token;

/// Where a token that is neither revoked nor expired stands among the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// When another one took its place; `None`: none has.
    pub rotation: Option<OffsetDateTime>,
    /// Whether that one is neither revoked nor expired: then it is counted in this one's place.
    pub superseded: bool,
    /// Whether as many counted tokens of its user as there may be are newer, not those that the policy ends.
    pub crowded_out: bool,
}

/// A token that breaks a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The token as it is.
    pub token: Token,
    /// The moment that it is judged for.
    pub judge_time: OffsetDateTime,
    /// The rules that it breaks; at least one.
    pub rules: Vec<Rule>,
    /// What would bring it within them.
    pub remedy: Remedy,
}

/// What brings a token within a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// It ends at once: no later end is allowed, or its user has too many that are newer.
    Revoke(Rule),
    /// It goes on with less.
    Narrow {
        /// Its earlier end; `None`: its end stays.
        expire_time: Option<OffsetDateTime>,
        /// The scopes that it loses.
        scopes: Vec<Scope>,
    },
}

/// An end that a rule leaves.
struct End {
    rule: Rule,
    latest: Option<OffsetDateTime>,
}

impl Policy {
    /// Tells what this policy finds wrong with a token that is neither revoked nor expired at `now`; `None`:
    /// nothing. Of a user's tokens the newest may stay.
    #[must_use]
    pub fn breach(&self, token: Token, standing: Standing, now: OffsetDateTime) -> Option<Breach> {
        if !Self::binds(&token) {
            return None;
        }
        let ends = self.broken_ends(&token, standing);
        let scopes = self.excess(&token);
        let beyond_quota = !standing.superseded && standing.crowded_out && self.most_active_tokens.is_some();
        let mut rules: Vec<Rule> = ends.iter().map(|end| end.rule).collect();
        rules.extend((!scopes.is_empty()).then_some(Rule::AllowedScopes));
        rules.extend(beyond_quota.then_some(Rule::MostActiveTokens));
        rules.first()?;
        let remedy = match (soonest(ends), beyond_quota) {
            (Some(End { rule, latest }), _) if latest.is_none_or(|end| end <= now) => Remedy::Revoke(rule),
            (_, true) => Remedy::Revoke(Rule::MostActiveTokens),
            (end, false) => {
                // A clock that was set back must not have it end before it began.
                let earliest = token.create_time.saturating_add(Duration::MICROSECOND);
                let expire_time = end.and_then(|end| end.latest).map(|end| end.max(earliest));
                Remedy::Narrow { expire_time, scopes }
            }
        };
        Some(Breach { token, judge_time: now, rules, remedy })
    }

    /// Returns the moment that no token was created after which `longest_lifetime` has brought to its end by `now`;
    /// `None`: there is none such.
    #[must_use]
    pub fn outlived_since(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        // What lies before the first year no token was created in, and Postgres need not be able to say.
        now.checked_sub(self.longest_lifetime?).filter(|since| since.year() > 0)
    }

    fn broken_ends(&self, token: &Token, standing: Standing) -> Vec<End> {
        let end = self.allows_end(token).err().map(|rule| End { rule, latest: self.latest_end(token) });
        let grace = standing.rotation.filter(|_| self.limits_graces()).and_then(|rotation| {
            let rule = self.allows_grace(token, rotation).err()?;
            Some(End { rule, latest: Some(self.grace_end(rotation)) })
        });
        end.into_iter().chain(grace).collect()
    }
}

/// Returns the soonest end; a rule that leaves no end of its own is kept by any.
fn soonest(ends: Vec<End>) -> Option<End> {
    ends.into_iter().min_by_key(|end| (end.latest.is_none(), end.latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scopes;
    use tokend_core::fixtures::token;

    fn alone() -> Standing {
        Standing::default()
    }

    fn remedy(policy: &Policy, token: &Token, standing: Standing, age: Duration) -> Option<Remedy> {
        policy.breach(token.clone(), standing, token.create_time + age).map(|breach| breach.remedy)
    }

    fn ending(token: &Token, after: Duration) -> Remedy {
        Remedy::Narrow { expire_time: Some(token.create_time + after), scopes: Vec::new() }
    }

    #[test]
    fn an_end_is_brought_forward_and_one_that_has_passed_revokes() {
        let policy =
            Policy { longest_lifetime: Some(Duration::HOUR), expiration_required: true, ..Policy::default() };
        let (mut token, hour) = (token(&["a"]), Duration::HOUR);
        assert_eq!(
            remedy(&policy, &token, alone(), hour - Duration::MICROSECOND),
            Some(ending(&token, hour))
        );
        assert_eq!(remedy(&policy, &token, alone(), hour), Some(Remedy::Revoke(Rule::ExpirationRequired)));
        token.expire_time = Some(token.create_time + 2 * hour);
        assert_eq!(remedy(&policy, &token, alone(), hour), Some(Remedy::Revoke(Rule::LongestLifetime)));
        token.expire_time = Some(token.create_time + hour);
        assert_eq!(remedy(&policy, &token, alone(), hour / 2), None);
    }

    #[test]
    fn where_no_end_can_be_derived_the_token_is_revoked() {
        let policy = Policy { expiration_required: true, ..Policy::default() };
        let token = token(&["a"]);
        let expected = Some(Remedy::Revoke(Rule::ExpirationRequired));
        assert_eq!(remedy(&policy, &token, alone(), Duration::HOUR), expected);
        let graced = Policy { longest_grace: Some(Duration::HOUR), ..policy };
        let rotated = Standing { rotation: Some(token.create_time), superseded: true, ..alone() };
        let expected = Some(ending(&token, Duration::HOUR));
        assert_eq!(remedy(&graced, &token, rotated, Duration::MINUTE), expected, "its grace gives it one");
    }

    #[test]
    fn scopes_are_lost_and_a_place_too_but_a_superseded_token_takes_none() {
        let allowed = Scopes::new(vec![Scope::parse("repo:*").unwrap()]).unwrap();
        let policy = Policy { allowed_scopes: allowed, most_active_tokens: Some(2), ..Policy::default() };
        let mut token = token(&["repo:a", "user:b"]);
        token.expire_time = Some(token.create_time + Duration::HOUR);
        let losing = Remedy::Narrow { expire_time: None, scopes: vec![Scope::parse("user:b").unwrap()] };
        let beside = |crowded_out| Standing { crowded_out, ..alone() };
        assert_eq!(remedy(&policy, &token, beside(false), Duration::MINUTE), Some(losing.clone()));
        let breach = policy.breach(token.clone(), beside(true), token.create_time).unwrap();
        assert_eq!(breach.rules, [Rule::AllowedScopes, Rule::MostActiveTokens]);
        assert_eq!(breach.remedy, Remedy::Revoke(Rule::MostActiveTokens));
        let rotated = Standing { rotation: Some(token.create_time), superseded: true, crowded_out: true };
        assert_eq!(remedy(&policy, &token, rotated, Duration::MINUTE), Some(losing));
        let orphaned = Standing { superseded: false, ..rotated };
        let revoked = Some(Remedy::Revoke(Rule::MostActiveTokens));
        assert_eq!(remedy(&policy, &token, orphaned, Duration::MINUTE), revoked, "its successor has ended");
    }
}
