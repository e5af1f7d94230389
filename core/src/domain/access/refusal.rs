//! Why a caller was refused: for its credential, or for what it may do.

use crate::domain::scope::ReservedScope;

/// Why a credential was not accepted. Each is `UNAUTHENTICATED` to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none.
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
    /// The token may not be used from where the call comes from.
    #[error("the credential may not be used from this address")]
    IpNotAllowed,
}

/// Why a caller may not do what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The caller lacks the scope that the call needs.
    #[error("the caller lacks the scope {}", .0.word())]
    MissingScope(ReservedScope),
    /// The caller named an organization that is not its own.
    #[error("the caller may act in its own organization alone")]
    ForeignOrganization,
    /// The token holds, or would hold, a reserved scope that the caller lacks.
    #[error("the token holds the reserved scope {}, which the caller lacks", .0.word())]
    Privileged(ReservedScope),
    /// A privileged token would live longer than its creator.
    #[error("a token with a reserved scope must not expire later than the caller's own")]
    OutlivesCaller,
    /// A privileged token could be used from where its creator cannot.
    #[error("a token with a reserved scope must not be usable from more networks than the caller's own")]
    WiderNetworks,
}
