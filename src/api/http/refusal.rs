//! Why an integration refuses a call, and the HTTP response to that: a status, a challenge of RFC
//! 6750 and a small JSON body. Called by every integration. Repeats nothing that was presented.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tonic::Status;

use super::limit_headers::Limits;
use crate::api::error::CallError;
use crate::api::status::{self, http_status};
use crate::domain::access::Denial;
use crate::domain::access::denial::{DenialKind, plain};
use crate::domain::{CredentialError, FieldError, Scope, Verdict, Violations};
use crate::metrics::IntegrationOutcome;
use crate::telemetry::should_log;
use crate::verify::AuthenticateError;

/// Why an integration refuses a call.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The credential presented through a gateway is not admitted.
    Denied { verdict: Verdict, missing: Vec<Scope>, limits: Option<Limits> },
    /// The error that an RPC would have.
    Call(CallError),
    /// The deadline has passed.
    Overdue,
    /// The request is too long.
    TooLong,
}

impl<E: Into<CallError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Call(error.into())
    }
}

/// The HTTP response to a refusal.
pub(crate) struct ResponseParts {
    pub(crate) status: StatusCode,
    /// For `WWW-Authenticate`.
    pub(crate) challenge: Option<String>,
    /// JSON.
    pub(crate) body: String,
    /// For `Retry-After`.
    pub(crate) retry_after: Option<String>,
    /// About the limits of the token.
    pub(crate) limits: Vec<(&'static str, String)>,
}

impl ResponseParts {
    /// Returns the response's headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let challenge = self.challenge.clone().map(|challenge| ("www-authenticate", challenge));
        let always = [("content-type", "application/json"), ("cache-control", "no-store")];
        let always = always.into_iter().map(|(name, value)| (name, value.to_owned()));
        let retry_after = self.retry_after.clone().map(|time| ("retry-after", time));
        always.chain(challenge).chain(retry_after).chain(self.limits.clone())
    }
}

impl Refusal {
    /// Refuses a credential with this verdict.
    pub(crate) fn denied(verdict: Verdict) -> Self {
        Self::Denied { verdict, missing: Vec::new(), limits: None }
    }

    /// Refuses a request because of one of its parameters.
    pub(crate) fn parameter(name: &str, error: &FieldError) -> Self {
        Violations::one(name, error).into()
    }

    /// Refuses a credential that cannot be valid.
    pub(crate) fn credential(error: CredentialError) -> Self {
        AuthenticateError::from(error).into()
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Denied { verdict, missing, .. } => match Denial::of_verdict(*verdict, missing).kind {
                DenialKind::Unauthenticated => StatusCode::UNAUTHORIZED,
                DenialKind::Forbidden => StatusCode::FORBIDDEN,
                DenialKind::Limited => StatusCode::TOO_MANY_REQUESTS,
            },
            Self::Call(error) => http_status(&Status::from(error)),
            Self::Overdue => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    pub(crate) fn outcome(&self) -> IntegrationOutcome {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS if matches!(self, Self::Denied { .. }) => {
                IntegrationOutcome::Limited
            }
            StatusCode::UNAUTHORIZED => IntegrationOutcome::Unauthenticated,
            StatusCode::FORBIDDEN => IntegrationOutcome::Forbidden,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => IntegrationOutcome::Invalid,
            _ => IntegrationOutcome::Unavailable,
        }
    }

    pub(crate) fn log(&self, duration: Duration, peer: Option<IpAddr>) {
        let duration_ms = duration.as_secs_f64() * 1e3;
        match self {
            Self::Denied { verdict, .. } => tracing::debug!(duration_ms, verdict = verdict.word(), "denied"),
            Self::Call(error) => status::log(error, &Status::from(error), Some(duration_ms), peer),
            Self::Overdue => {
                if should_log("OVERDUE", peer) {
                    tracing::warn!(duration_ms, "a call took too long");
                }
            }
            Self::TooLong => {
                if should_log("TOO_LONG", peer) {
                    tracing::info!(
                        "a gateway sends more than tokend reads: configure Envoy to send no \
                         request bodies"
                    );
                }
            }
        }
    }

    /// Builds the response, with the error codes of RFC 6750 (3.1), RFC 6749 (5.2) and RFC 7009 (2.2.1).
    pub(crate) fn parts(&self) -> ResponseParts {
        let status = self.status();
        let denied = |denial: Denial| (denial.challenge, denial.body);
        let (challenge, body) = match (self, status) {
            (Self::Denied { verdict, missing, .. }, _) => denied(Denial::of_verdict(*verdict, missing)),
            (Self::Call(CallError::Authenticate(AuthenticateError::Credential(error))), _) => {
                denied(Denial::of_credential(*error))
            }
            (_, StatusCode::UNAUTHORIZED) => denied(Denial::of_credential(CredentialError::Invalid)),
            (_, StatusCode::FORBIDDEN) => {
                (Some(r#"Bearer error="insufficient_scope""#.to_owned()), plain("insufficient_scope"))
            }
            (Self::Call(CallError::Invalid(violations)), _) => {
                let wrong = violations.list().iter();
                let wrong = wrong.map(|violation| format!("{} {}", violation.field, violation.description));
                let description = wrong.collect::<Vec<_>>().join("; ");
                (None, json!({"error": "invalid_request", "error_description": description}).to_string())
            }
            (_, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) => (None, plain("invalid_request")),
            _ => (None, plain("temporarily_unavailable")),
        };
        let limits = match self {
            Self::Denied { limits, .. } => limits.as_ref(),
            _ => None,
        };
        let later = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let retry_after = match limits {
            Some(limits) => limits.retry_after(),
            None => later.then(|| "1".to_owned()),
        };
        let limits = limits.into_iter().flat_map(Limits::headers).collect();
        ResponseParts { status, challenge, body, retry_after, limits }
    }
}
