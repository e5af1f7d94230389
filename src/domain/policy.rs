//! An organization's policy, and the functions that check a token against it. Called by the actions
//! inside their transactions. Knows no clock: times are arguments.

use time::{Duration, OffsetDateTime};

use super::fields::MAX_EXPIRE_TIME;
use super::plan::PlanName;
use super::root::is_root;
use super::scope::{Scope, Scopes};
use super::token::Token;

pub use tokend_core::domain::rule::Rule;

/// The longest time that a rotated token may stay valid, independent of any policy.
pub const MAX_GRACE: Duration = Duration::days(30);

/// An organization's policy. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The longest time from creation to expiration, in whole seconds; `None`: any.
    pub longest_lifetime: Option<Duration>,
    /// Whether every token must expire.
    pub expiration_required: bool,
    /// The longest time that a rotated token may stay valid, in whole seconds; `None`: [`MAX_GRACE`].
    pub longest_grace: Option<Duration>,
    /// How many tokens of a user may be neither revoked nor expired; `None`: any number.
    pub most_active_tokens: Option<u32>,
    /// The scopes that must cover every scope of a token; empty: any scope.
    pub allowed_scopes: Scopes,
    /// Whether using a superseded token to rotate revokes its family.
    pub reuse_detection: bool,
    /// Whether every token must have a plan.
    pub plan_required: bool,
    /// The plan of a token that is created without one; `None`: none.
    pub default_plan: Option<PlanName>,
}

/// A policy as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The policy.
    pub policy: Policy,
    /// Who last changed it, as in the audit log; `None`: nobody has.
    pub updated_by: Option<String>,
    /// When it was last changed.
    pub update_time: Option<OffsetDateTime>,
}

impl Policy {
    /// Returns whether policies apply to this token: to all but root tokens, which belong to the
    /// installation.
    #[must_use]
    pub fn binds(token: &Token) -> bool {
        !is_root(token)
    }

    /// Checks that a token's expiration is allowed.
    ///
    /// # Errors
    /// It has none although one is required or lifetimes are limited, or is too long after its
    /// creation.
    pub fn allows_end(&self, token: &Token) -> Result<(), Rule> {
        match (token.expire_time, self.latest_end(token)) {
            _ if !Self::binds(token) => Ok(()),
            (None, _) if self.expiration_required => Err(Rule::ExpirationRequired),
            (None, Some(_)) => Err(Rule::LongestLifetime),
            (Some(end), Some(latest)) if end > latest => Err(Rule::LongestLifetime),
            _ => Ok(()),
        }
    }

    /// Returns the latest allowed expiration of the token; `None`: any, or none at all. An expiration
    /// exactly `longest_lifetime` after the creation is allowed.
    #[must_use]
    pub fn latest_end(&self, token: &Token) -> Option<OffsetDateTime> {
        // Never later than the latest expiration that a token can have.
        Some(token.create_time.saturating_add(self.longest_lifetime?).min(MAX_EXPIRE_TIME))
    }

    /// Checks that a token's scopes are allowed.
    ///
    /// # Errors
    /// One of them is not covered by any allowed scope.
    pub fn allows_scopes(&self, token: &Token) -> Result<(), Rule> {
        if self.excess(token).is_empty() { Ok(()) } else { Err(Rule::AllowedScopes) }
    }

    /// Returns the scopes of a token that are not allowed.
    #[must_use]
    pub fn excess(&self, token: &Token) -> Vec<Scope> {
        if self.allowed_scopes.iter().next().is_none() || !Self::binds(token) {
            return Vec::new();
        }
        token.scopes.not_covered_by(|| self.allowed_scopes.iter().map(|scope| scope.as_str().as_bytes()))
    }

    /// Checks that a token's plan is allowed.
    ///
    /// # Errors
    /// It has none although one is required.
    pub fn allows_plan(&self, token: &Token) -> Result<(), Rule> {
        let lacks = self.plan_required && token.plan.is_none() && Self::binds(token);
        if lacks { Err(Rule::PlanRequired) } else { Ok(()) }
    }

    /// Returns the plan that the token gets if its request names none.
    #[must_use]
    pub fn default_plan_of(&self, token: &Token) -> Option<&PlanName> {
        self.default_plan.as_ref().filter(|_| Self::binds(token))
    }

    /// Checks that a token, rotated at `rotation`, expires within the grace period.
    ///
    /// # Errors
    /// It expires later.
    pub fn allows_grace(&self, rotated: &Token, rotation: OffsetDateTime) -> Result<(), Rule> {
        let keeps = rotated.expire_time.is_some_and(|end| end <= self.grace_end(rotation));
        if keeps || !Self::binds(rotated) { Ok(()) } else { Err(Rule::LongestGrace) }
    }

    /// Returns the latest expiration of a token that was rotated at `rotation`.
    #[must_use]
    pub fn grace_end(&self, rotation: OffsetDateTime) -> OffsetDateTime {
        rotation.saturating_add(self.longest_grace.unwrap_or(MAX_GRACE))
    }

    /// Returns whether the expiration of a rotated token must be checked: if grace periods are limited,
    /// or if tokens are counted, since it is not counted.
    #[must_use]
    pub fn limits_graces(&self) -> bool {
        self.longest_grace.is_some() || self.most_active_tokens.is_some()
    }

    /// Checks that a user with this many other active tokens may have this one.
    ///
    /// # Errors
    /// The user has reached the limit.
    pub fn allows_another(&self, token: &Token, others: u32) -> Result<(), Rule> {
        match self.most_active_tokens {
            Some(most) if others >= most && Self::binds(token) => Err(Rule::MostActiveTokens),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokend_core::fixtures::token;

    fn allowing(scopes: &[&str]) -> Policy {
        let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
        Policy { allowed_scopes: Scopes::new(scopes).unwrap(), ..Policy::default() }
    }

    #[test]
    fn an_expiration_is_allowed_up_to_and_including_the_longest_lifetime() {
        let policy = Policy { longest_lifetime: Some(Duration::HOUR), ..Policy::default() };
        let mut token = token(&[]);
        assert_eq!(policy.allows_end(&token), Err(Rule::LongestLifetime), "never is too long");
        token.expire_time = Some(token.create_time + Duration::HOUR);
        assert_eq!(policy.allows_end(&token), Ok(()));
        token.expire_time = Some(token.create_time + Duration::HOUR + Duration::MICROSECOND);
        assert_eq!(policy.allows_end(&token), Err(Rule::LongestLifetime));
        let endless = Policy { longest_lifetime: Some(Duration::weeks(1_000_000)), ..policy };
        token.expire_time = Some(MAX_EXPIRE_TIME);
        assert_eq!(endless.allows_end(&token), Ok(()));
    }

    #[test]
    fn a_scope_is_allowed_where_a_pattern_covers_it() {
        let policy = allowing(&["repo:*", "tokend:read"]);
        for (scopes, allowed) in [
            (&[][..], true),
            (&["repo:a", "repo:*", "tokend:read"], true),
            (&["repo"], false),
            (&["repo:a", "user:b"], false),
            (&["tokend:write"], false),
            (&["tokend:root"], true),
        ] {
            assert_eq!(policy.allows_scopes(&token(scopes)).is_ok(), allowed, "{scopes:?}");
        }
        assert!(Policy::default().allows_scopes(&token(&["anything"])).is_ok());
    }

    #[test]
    fn no_policy_applies_to_a_root_token_and_an_empty_policy_to_none() {
        let strict = Policy {
            longest_lifetime: Some(Duration::SECOND),
            expiration_required: true,
            longest_grace: Some(Duration::ZERO),
            most_active_tokens: Some(1),
            plan_required: true,
            default_plan: PlanName::parse("free").ok(),
            ..allowing(&["a"])
        };
        let (root, other) = (token(&["tokend:root"]), token(&["b"]));
        assert_eq!(strict.allows_end(&root).and(strict.allows_another(&root, 9)), Ok(()));
        assert_eq!(strict.allows_plan(&root), Ok(()));
        assert_eq!(
            (strict.default_plan_of(&root), strict.allows_plan(&other)),
            (None, Err(Rule::PlanRequired))
        );
        let limited = Token { plan: strict.default_plan_of(&other).cloned(), ..other.clone() };
        assert_eq!(strict.allows_plan(&limited), Ok(()));
        assert_eq!(strict.allows_end(&other), Err(Rule::ExpirationRequired));
        assert_eq!(strict.allows_another(&other, 1), Err(Rule::MostActiveTokens));
        assert_eq!(strict.allows_another(&other, 0), Ok(()));
        let lenient = Policy::default();
        assert_eq!(lenient.allows_end(&other).and(lenient.allows_another(&other, u32::MAX)), Ok(()));
    }
}
