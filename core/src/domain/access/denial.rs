//! The HTTP response for a rejected credential: a challenge of RFC 6750 (3.1) and a small JSON body.
//! Used by the server's HTTP endpoints and by the client's guards. Never repeats what was presented.

use super::CredentialError;
use crate::domain::{Scope, Verdict};

/// The content of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Which status the response has.
    pub kind: DenialKind,
    /// The value of `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// The body, as JSON.
    pub body: String,
}

/// The kinds of rejection, each with a status of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialKind {
    /// 401: the credential is not valid.
    Unauthenticated,
    /// 403: the credential is valid, but not for this.
    Forbidden,
    /// 429: the credential is valid, but a limit of its plan is used up.
    Limited,
}

impl Denial {
    /// Creates the response for a missing or rejected credential.
    #[must_use]
    pub fn of_credential(error: CredentialError) -> Self {
        let challenge = match error {
            CredentialError::Missing => "Bearer",
            _ => INVALID_CHALLENGE,
        };
        Self {
            kind: DenialKind::Unauthenticated,
            challenge: Some(challenge.to_owned()),
            body: plain(INVALID),
        }
    }

    /// Creates the response for a secret with this verdict and these missing scopes.
    #[must_use]
    pub fn of_verdict(verdict: Verdict, missing: &[Scope]) -> Self {
        let word = verdict.word();
        let with_error = |error: &str| format!(r#"{{"error":"{error}","verdict":"{word}"}}"#);
        match verdict {
            Verdict::MissingScope if missing.is_empty() => Self {
                kind: DenialKind::Forbidden,
                challenge: Some(format!(r#"Bearer error="{INSUFFICIENT}""#)),
                body: with_error(INSUFFICIENT),
            },
            Verdict::MissingScope => {
                // No character of a scope needs escaping.
                let scopes = missing.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
                Self {
                    kind: DenialKind::Forbidden,
                    challenge: Some(format!(r#"Bearer error="{INSUFFICIENT}", scope="{scopes}""#)),
                    body: format!(r#"{{"error":"{INSUFFICIENT}","scope":"{scopes}","verdict":"{word}"}}"#),
                }
            }
            Verdict::IpNotAllowed => {
                Self { kind: DenialKind::Forbidden, challenge: None, body: with_error("access_denied") }
            }
            Verdict::RateLimited | Verdict::CreditsExhausted => {
                Self { kind: DenialKind::Limited, challenge: None, body: with_error(word) }
            }
            _ => Self {
                kind: DenialKind::Unauthenticated,
                challenge: Some(INVALID_CHALLENGE.to_owned()),
                body: with_error(INVALID),
            },
        }
    }
}

const INVALID: &str = "invalid_token";
const INVALID_CHALLENGE: &str = r#"Bearer error="invalid_token""#;
const INSUFFICIENT: &str = "insufficient_scope";

/// Returns the body with an error only, a word of letters and underscores.
#[must_use]
pub fn plain(error: &str) -> String {
    format!(r#"{{"error":"{error}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_denial_has_a_status_a_challenge_and_a_body() {
        let missing = [Scope::parse("repo:read").unwrap(), Scope::parse("user:*").unwrap()];
        let invalid = Some(INVALID_CHALLENGE);
        for (denial, kind, challenge, body) in [
            (
                Denial::of_credential(CredentialError::Missing),
                DenialKind::Unauthenticated,
                Some("Bearer"),
                r#"{"error":"invalid_token"}"#,
            ),
            (
                Denial::of_credential(CredentialError::Malformed),
                DenialKind::Unauthenticated,
                invalid,
                r#"{"error":"invalid_token"}"#,
            ),
            (
                Denial::of_verdict(Verdict::Revoked, &[]),
                DenialKind::Unauthenticated,
                invalid,
                r#"{"error":"invalid_token","verdict":"revoked"}"#,
            ),
            (
                Denial::of_verdict(Verdict::MissingScope, &missing),
                DenialKind::Forbidden,
                Some(r#"Bearer error="insufficient_scope", scope="repo:read user:*""#),
                r#"{"error":"insufficient_scope","scope":"repo:read user:*","verdict":"missing_scope"}"#,
            ),
            (
                Denial::of_verdict(Verdict::MissingScope, &[]),
                DenialKind::Forbidden,
                Some(r#"Bearer error="insufficient_scope""#),
                r#"{"error":"insufficient_scope","verdict":"missing_scope"}"#,
            ),
            (
                Denial::of_verdict(Verdict::IpNotAllowed, &[]),
                DenialKind::Forbidden,
                None,
                r#"{"error":"access_denied","verdict":"ip_not_allowed"}"#,
            ),
            (
                Denial::of_verdict(Verdict::RateLimited, &[]),
                DenialKind::Limited,
                None,
                r#"{"error":"rate_limited","verdict":"rate_limited"}"#,
            ),
            (
                Denial::of_verdict(Verdict::CreditsExhausted, &[]),
                DenialKind::Limited,
                None,
                r#"{"error":"credits_exhausted","verdict":"credits_exhausted"}"#,
            ),
        ] {
            assert_eq!((denial.kind, denial.challenge.as_deref(), &*denial.body), (kind, challenge, body));
        }
    }
}
