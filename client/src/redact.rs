//! Hand-written `Debug` for messages that carry a secret, or a request id, which is as sensitive.
//! build.rs derives none for these.

use std::fmt;

use super::proto::{
    CreateTokenRequest, CreateTokenResponse, RevokeTokenRequest, RotateTokenRequest, RotateTokenResponse,
    VerifyRequest, create_token_request, revoke_token_request, rotate_token_request,
};

const REDACTED: &str = "[redacted]";

impl fmt::Debug for CreateTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { organization_id, user_id, name, scopes, labels, allowed_cidrs, request_id: _, expiration } =
            self;
        f.debug_struct("CreateTokenRequest")
            .field("organization_id", organization_id)
            .field("user_id", user_id)
            .field("name", name)
            .field("expiration", expiration)
            .field("scopes", scopes)
            .field("labels", labels)
            .field("allowed_cidrs", allowed_cidrs)
            .field("request_id", &REDACTED)
            .finish()
    }
}

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, secret: _ } = self;
        f.debug_struct("CreateTokenResponse").field("token", token).field("secret", &REDACTED).finish()
    }
}

impl fmt::Debug for RotateTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token_id, grace_period, request_id: _, force, expiration } = self;
        f.debug_struct("RotateTokenRequest")
            .field("token_id", token_id)
            .field("expiration", expiration)
            .field("grace_period", grace_period)
            .field("request_id", &REDACTED)
            .field("force", force)
            .finish()
    }
}

/// Writes the `Debug` of choices that have none because their message has none.
macro_rules! show_expiration {
    ($($choice:ty),+) => {$(
        impl fmt::Debug for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::ExpireTime(time) => f.debug_tuple("ExpireTime").field(time).finish(),
                    Self::Ttl(ttl) => f.debug_tuple("Ttl").field(ttl).finish(),
                    Self::NoExpiration(chosen) => f.debug_tuple("NoExpiration").field(chosen).finish(),
                }
            }
        }
    )+};
}

show_expiration!(create_token_request::Expiration, rotate_token_request::Expiration);

impl fmt::Debug for RotateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, secret: _ } = self;
        f.debug_struct("RotateTokenResponse").field("token", token).field("secret", &REDACTED).finish()
    }
}

impl fmt::Debug for RevokeTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, reason, only_this, force } = self;
        f.debug_struct("RevokeTokenRequest")
            .field("target", target)
            .field("reason", reason)
            .field("only_this", only_this)
            .field("force", force)
            .finish()
    }
}

impl fmt::Debug for revoke_token_request::Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenId(id) => f.debug_tuple("TokenId").field(id).finish(),
            Self::Secret(_) => f.debug_tuple("Secret").field(&REDACTED).finish(),
        }
    }
}

impl fmt::Debug for VerifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, required_scopes, client_ip, consistency } = self;
        f.debug_struct("VerifyRequest")
            .field("secret", &REDACTED)
            .field("required_scopes", required_scopes)
            .field("client_ip", client_ip)
            .field("consistency", consistency)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_its_secret_when_debugged() {
        let secret = "tokd_canary".to_owned();
        let target = Some(revoke_token_request::Target::Secret(secret.clone()));
        let verify = VerifyRequest { secret: secret.clone(), ..Default::default() };
        let messages = (
            CreateTokenRequest { request_id: secret.clone(), ..Default::default() },
            CreateTokenResponse { secret: secret.clone(), ..Default::default() },
            RotateTokenRequest { request_id: secret.clone(), ..Default::default() },
            RotateTokenResponse { secret, ..Default::default() },
            RevokeTokenRequest { target, ..Default::default() },
            verify.clone(),
        );
        let shown = format!("{messages:?} {:?}", tonic::Request::new(verify));
        assert_eq!((shown.contains("canary"), shown.matches(REDACTED).count()), (false, 7));
    }
}
