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
}
