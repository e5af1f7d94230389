//! Which rules of a policy an existing token breaks, and the smallest change that fixes it. One
//! function for the dry run and for enforcement, so that both agree. Called by the store, which reads
//! the state of each token. Knows no clock.

use time::{Duration, OffsetDateTime};

use super::policy::{Policy, Rule};
use super::scope::Scope;
use super::token::Token;

/// The state of a token, neither revoked nor expired, relative to other tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenContext {
    /// When it was superseded; `None`: it was not.
    pub rotation: Option<OffsetDateTime>,
    /// Whether its successor is neither revoked nor expired: then that is counted instead of this one.
    pub superseded: bool,
    /// Whether the user's limit is reached by newer counted tokens, without those that the policy ends.
    pub crowded_out: bool,
}

/// A token that breaks a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The token as it is now.
    pub token: Token,
    /// The time at which it is judged.
    pub judge_time: OffsetDateTime,
    /// The rules that it breaks; at least one.
    pub rules: Vec<Rule>,
    /// What makes it comply.
    pub remedy: Remedy,
}

/// What makes a token comply with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// It is revoked: no later expiration is allowed, or its user has too many newer tokens.
    Revoke(Rule),
    /// It stays valid with less.
    Narrow {
        /// Its earlier expiration; `None`: the expiration does not change.
        expire_time: Option<OffsetDateTime>,
        /// The scopes that it loses.
        scopes: Vec<Scope>,
    },
}

/// The latest expiration that a broken rule allows.
struct End {
    rule: Rule,
    latest: Option<OffsetDateTime>,
}

impl Policy {
    /// Returns how a token that is neither revoked nor expired at `now` breaks this policy; `None`: it
    /// does not. Of a user's tokens the newest may stay.
    #[must_use]
    pub fn breach(&self, token: Token, context: TokenContext, now: OffsetDateTime) -> Option<Breach> {
        if !Self::binds(&token) {
            return None;
        }
        let ends = self.broken_ends(&token, context);
        let scopes = self.excess(&token);
        let beyond_quota = !context.superseded && context.crowded_out && self.most_active_tokens.is_some();
        let mut rules: Vec<Rule> = ends.iter().map(|end| end.rule).collect();
        rules.extend((!scopes.is_empty()).then_some(Rule::AllowedScopes));
        rules.extend(beyond_quota.then_some(Rule::MostActiveTokens));
        rules.first()?;
        let remedy = match (soonest(ends), beyond_quota) {
            (Some(End { rule, latest }), _) if latest.is_none_or(|end| end <= now) => Remedy::Revoke(rule),
            (_, true) => Remedy::Revoke(Rule::MostActiveTokens),
            (end, false) => {
                // If the clock was set back, it must not expire before its creation.
                let earliest = token.create_time.saturating_add(Duration::MICROSECOND);
                let expire_time = end.and_then(|end| end.latest).map(|end| end.max(earliest));
                Remedy::Narrow { expire_time, scopes }
            }
        };
        Some(Breach { token, judge_time: now, rules, remedy })
    }

    /// Returns the latest creation time of tokens that `longest_lifetime` has expired by `now`; `None`:
    /// there are none.
    #[must_use]
    pub fn expires_created_before(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        // No token was created before year 1, and Postgres may not be able to represent such times.
        now.checked_sub(self.longest_lifetime?).filter(|since| since.year() > 0)
    }

    fn broken_ends(&self, token: &Token, context: TokenContext) -> Vec<End> {
        let end = self.allows_end(token).err().map(|rule| End { rule, latest: self.latest_end(token) });
        let grace = context.rotation.filter(|_| self.limits_graces()).and_then(|rotation| {
            let rule = self.allows_grace(token, rotation).err()?;
            Some(End { rule, latest: Some(self.grace_end(rotation)) })
        });
        end.into_iter().chain(grace).collect()
    }
}

/// Returns the earliest expiration; a rule without one of its own is satisfied by any.
fn soonest(ends: Vec<End>) -> Option<End> {
    ends.into_iter().min_by_key(|end| (end.latest.is_none(), end.latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scopes;
    use tokend_core::fixtures::token;

    fn alone() -> TokenContext {
        TokenContext::default()
    }

    fn remedy(policy: &Policy, token: &Token, context: TokenContext, age: Duration) -> Option<Remedy> {
        policy.breach(token.clone(), context, token.create_time + age).map(|breach| breach.remedy)
    }

    fn ending(token: &Token, after: Duration) -> Remedy {
        Remedy::Narrow { expire_time: Some(token.create_time + after), scopes: Vec::new() }
    }

    #[test]
    fn an_expiration_is_shortened_and_one_that_has_passed_revokes() {
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
    fn a_token_without_a_derivable_expiration_is_revoked() {
        let policy = Policy { expiration_required: true, ..Policy::default() };
        let token = token(&["a"]);
        let expected = Some(Remedy::Revoke(Rule::ExpirationRequired));
        assert_eq!(remedy(&policy, &token, alone(), Duration::HOUR), expected);
        let graced = Policy { longest_grace: Some(Duration::HOUR), ..policy };
        let rotated = TokenContext { rotation: Some(token.create_time), superseded: true, ..alone() };
        let expected = Some(ending(&token, Duration::HOUR));
        assert_eq!(remedy(&graced, &token, rotated, Duration::MINUTE), expected, "its grace gives it one");
    }

    #[test]
    fn disallowed_scopes_are_removed_and_a_superseded_token_does_not_count() {
        let allowed = Scopes::new(vec![Scope::parse("repo:*").unwrap()]).unwrap();
        let policy = Policy { allowed_scopes: allowed, most_active_tokens: Some(2), ..Policy::default() };
        let mut token = token(&["repo:a", "user:b"]);
        token.expire_time = Some(token.create_time + Duration::HOUR);
        let losing = Remedy::Narrow { expire_time: None, scopes: vec![Scope::parse("user:b").unwrap()] };
        let context = |crowded_out| TokenContext { crowded_out, ..alone() };
        assert_eq!(remedy(&policy, &token, context(false), Duration::MINUTE), Some(losing.clone()));
        let breach = policy.breach(token.clone(), context(true), token.create_time).unwrap();
        assert_eq!(breach.rules, [Rule::AllowedScopes, Rule::MostActiveTokens]);
        assert_eq!(breach.remedy, Remedy::Revoke(Rule::MostActiveTokens));
        let rotated = TokenContext { rotation: Some(token.create_time), superseded: true, crowded_out: true };
        assert_eq!(remedy(&policy, &token, rotated, Duration::MINUTE), Some(losing));
        let orphaned = TokenContext { superseded: false, ..rotated };
        let revoked = Some(Remedy::Revoke(Rule::MostActiveTokens));
        assert_eq!(remedy(&policy, &token, orphaned, Duration::MINUTE), revoked, "its successor has ended");
    }
}
