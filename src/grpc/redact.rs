//! The Debug of messages that carry a secret, written by hand so that the secret stays out of it. build.rs
//! leaves these out of what it derives.

use std::fmt;

use super::proto::{CreateTokenResponse, VerifyRequest};

const REDACTED: &str = "[redacted]";

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, secret: _ } = self;
        f.debug_struct("CreateTokenResponse").field("token", token).field("secret", &REDACTED).finish()
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
        let response = CreateTokenResponse { secret: secret.clone(), ..Default::default() };
        let request = VerifyRequest { secret, ..Default::default() };
        assert!(!format!("{response:?} {request:?}").contains("canary"));
        assert!(!format!("{:?}", tonic::Request::new(request)).contains("canary"));
    }
}
