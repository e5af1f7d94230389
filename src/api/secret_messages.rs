//! What is generated without a Debug. Called by the build scripts of the server and of its client.

/// Messages that carry a secret, or what is as good as one: their `Debug` is written by hand, in `redact.rs`, and shows
/// none of it.
pub(crate) const SECRET_MESSAGES: [&str; 6] = [
    "tokend.v1.CreateTokenRequest",
    "tokend.v1.CreateTokenResponse",
    "tokend.v1.RotateTokenRequest",
    "tokend.v1.RotateTokenResponse",
    "tokend.v1.RevokeTokenRequest",
    "tokend.v1.VerifyRequest",
];
