//! The rules of an organization's policy, by their names in the API. Reported by the server, which
//! checks tokens against them, and read by its client.

/// One rule that a policy sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// The token would live too long.
    #[error("the lifetime is longer than the organization's policy allows")]
    LongestLifetime,
    /// The token would never expire.
    #[error("the organization's policy requires an expiration")]
    ExpirationRequired,
    /// The rotated token would stay valid for too long.
    #[error("the grace period is longer than the organization's policy allows")]
    LongestGrace,
    /// The user has reached the maximum number of tokens.
    #[error("the user has as many active tokens as the organization's policy allows")]
    MostActiveTokens,
    /// The token would have a scope that is not allowed.
    #[error("the organization's policy does not allow all of these scopes")]
    AllowedScopes,
    /// The token would have no plan.
    #[error("the organization's policy requires a plan")]
    PlanRequired,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 6] = [
        Self::LongestLifetime,
        Self::ExpirationRequired,
        Self::LongestGrace,
        Self::MostActiveTokens,
        Self::AllowedScopes,
        Self::PlanRequired,
    ];

    /// Returns the name of the rule's field in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::LongestLifetime => "longest_lifetime",
            Self::ExpirationRequired => "expiration_required",
            Self::LongestGrace => "longest_grace",
            Self::MostActiveTokens => "most_active_tokens_per_user",
            Self::AllowedScopes => "allowed_scopes",
            Self::PlanRequired => "plan_required",
        }
    }

    /// Returns the rule with this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.word() == word)
    }
}
