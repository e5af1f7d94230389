//! The messages that are generated without a `Debug`. Used by the build scripts of the server and
//! of its client.

/// Messages that carry a secret or something as sensitive: their `Debug` is hand-written in
/// `redact.rs` and shows none of it.
pub(crate) const SECRET_MESSAGES: [&str; 6] = [
    "tokend.v1.CreateTokenRequest",
    "tokend.v1.CreateTokenResponse",
    "tokend.v1.RotateTokenRequest",
    "tokend.v1.RotateTokenResponse",
    "tokend.v1.RevokeTokenRequest",
    "tokend.v1.VerifyRequest",
];
