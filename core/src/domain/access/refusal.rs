//! Why a caller was rejected: because of its credential, or its permissions.

use crate::domain::scope::ReservedScope;

/// Why a credential was rejected. For the client each is `UNAUTHENTICATED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is no credential.
    #[error("no credential was given; send the metadata 'authorization: Bearer <secret>'")]
    Missing,
    /// The header is not exactly one `Bearer <secret>`.
    #[error("the authorization metadata must be exactly one value of the form 'Bearer <secret>'")]
    Malformed,
    /// The secret is not a known one.
    #[error("the credential is not valid")]
    Invalid,
    /// The token has expired.
    #[error("the credential has expired")]
    Expired,
    /// The token was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// The token is disabled.
    #[error("the credential is disabled")]
    Disabled,
    /// The token may not be used from the call's address.
    #[error("the credential may not be used from this address")]
    IpNotAllowed,
    /// The portal session is over, or nothing vouches for its person any more.
    #[error("the portal session is over")]
    PortalOver,
}

/// Why a caller may not execute its request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The caller lacks the scope that the call needs.
    #[error("the caller lacks the scope {}", .0.word())]
    MissingScope(ReservedScope),
    /// The caller named an organization that is not its own.
    #[error("the caller may act only in its own organization")]
    ForeignOrganization,
    /// The token has, or would have, a reserved scope that the caller lacks.
    #[error("the token holds the reserved scope {}, which the caller lacks", .0.word())]
    Privileged(ReservedScope),
    /// A privileged token would expire later than its creator.
    #[error("a token with a reserved scope must not expire later than the caller's own")]
    OutlivesCaller,
    /// A privileged token could be used from networks that its creator cannot use.
    #[error("a token with a reserved scope must not be usable from more networks than the caller's own")]
    WiderNetworks,
    /// A caller with `tokend:self` or with a grant would act beyond what it may issue.
    #[error("{}", .0.text())]
    Exceeds(Bound),
}

/// What limits a caller with `tokend:self` or with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The scopes.
    Scopes,
    /// The users.
    User,
    /// The time until a token expires.
    Lifetime,
    /// The networks.
    Networks,
    /// The grant of a token with `tokend:write`.
    Grant,
    /// The plan.
    Plan,
}

impl Bound {
    /// Every bound.
    pub const ALL: [Self; 6] =
        [Self::Scopes, Self::User, Self::Lifetime, Self::Networks, Self::Grant, Self::Plan];

    /// Returns the bound's lower-case name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::User => "user",
            Self::Lifetime => "lifetime",
            Self::Networks => "networks",
            Self::Grant => "grant",
            Self::Plan => "plan",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Scopes => "the token has a scope that the caller may not issue",
            Self::User => "the caller may not act for this user",
            Self::Lifetime => "the token expires later than the caller may set, or never",
            Self::Networks => "the token is usable from more networks than the caller may set",
            Self::Grant => "the token may issue more than the caller may",
            Self::Plan => "the caller may not issue a token with this plan, or without one",
        }
    }
}
