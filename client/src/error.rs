//! Why a call has no response, with a kind that a caller can act on. Built from statuses; contains
//! no secret, since tokend's messages repeat nothing that was sent.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokend_core::domain::Rule;
use tokend_core::secret::TokenId;
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::enums::ErrorReason;
use crate::proto;

/// The domain of tokend's own reasons.
const DOMAIN: &str = "tokend";

/// What went wrong, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's own credential was not accepted.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The caller can reach no such token.
    NotFound,
    /// Fields are invalid; [`Error::violations`] lists them.
    Invalid,
    /// The request id was used for a different request.
    AlreadyExists,
    /// The token's state or the organization's policy forbids it; [`Error::reason`] says which.
    FailedPrecondition,
    /// The caller is over its share.
    ResourceExhausted,
    /// The outcome is unknown: tokend, its database or the network is unavailable or overloaded.
    Unavailable,
    /// No response came in time. A change may or may not have been made.
    DeadlineExceeded,
    /// The response does not follow the contract.
    InvalidResponse,
    /// Anything else.
    Other,
}

/// A field of a request, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// Its path in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why a call has no response. Its source is the transport's error, if there is one.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    reason: Option<ErrorReason>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    rule: Option<Rule>,
    token_id: Option<TokenId>,
    code: Option<Code>,
    cause: Option<Arc<Status>>,
    /// Whether tokend itself answered with it.
    answered: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref()?.source()
    }
}

impl Error {
    /// Returns what went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns tokend's own reason; `None` if the failure is not tokend's, or the reason is newer
    /// than this client.
    #[must_use]
    pub fn reason(&self) -> Option<ErrorReason> {
        self.reason
    }

    /// Returns everything that is wrong with the request's fields.
    #[must_use]
    pub fn violations(&self) -> &[FieldViolation] {
        &self.violations
    }

    /// Returns the shortest time to wait before a retry.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the rule of the organization's policy that forbids it, with
    /// [`PolicyForbids`](ErrorReason::PolicyForbids); `None` also for a rule that is newer than this client.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        self.rule
    }

    /// Returns the token concerned: with [`TokenRotated`](ErrorReason::TokenRotated) the successor,
    /// with [`RequestNotRepeatable`](ErrorReason::RequestNotRepeatable) the one to revoke.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        self.token_id
    }

    /// Returns the gRPC code of the call, as the gRPC specification spells it; `None` if this
    /// client found the failure itself.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        self.code.map(code_name)
    }

    /// Returns whether the request surely had no effect: tokend answered with an error, which spends nothing, there was
    /// no connection, or HTTP/2 says that the request was not begun. Not known of errors that a proxy may have made.
    pub(crate) fn was_not_processed(&self) -> bool {
        let is_unbegun = |status| {
            find_cause::<ConnectError>(status).is_some()
                || find_cause(status).is_some_and(hyper::Error::is_canceled)
                || find_cause(status).is_some_and(is_refusal)
        };
        self.answered || self.cause.as_deref().is_some_and(is_unbegun)
    }

    pub(crate) fn overdue() -> Self {
        Self::plain(ErrorKind::DeadlineExceeded, "no response came in time".to_owned())
    }

    pub(crate) fn lost() -> Self {
        Self::plain(ErrorKind::Unavailable, "the connection was lost before the response came".to_owned())
    }

    /// A peer presents too many unknown secrets.
    #[cfg(feature = "local")]
    pub(crate) fn guesses(retry_after: Duration) -> Self {
        let message = "this peer has presented too many unknown secrets".to_owned();
        Self { retry_after: Some(retry_after), ..Self::plain(ErrorKind::ResourceExhausted, message) }
    }

    pub(crate) fn overloaded() -> Self {
        Self::plain(ErrorKind::Unavailable, "too many requests wait for their responses".to_owned())
    }

    /// The response lacks a field, or has an invalid one.
    pub(crate) fn invalid_response(what: &str) -> Self {
        Self::plain(ErrorKind::InvalidResponse, format!("the server's response has no usable {what}"))
    }

    fn plain(kind: ErrorKind, message: String) -> Self {
        Self {
            kind,
            message,
            reason: None,
            violations: Vec::new(),
            retry_after: None,
            rule: None,
            token_id: None,
            code: None,
            cause: None,
            answered: false,
        }
    }
}

impl Error {
    /// Converts a call's status.
    pub(crate) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().filter(|info| info.domain == DOMAIN);
        let detail = |name| Some(&**reason?.metadata.get(name)?);
        let violations = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
        let violation = |violation: &tonic_types::FieldViolation| FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
        };
        Self {
            kind: kind(status),
            message: message(status),
            reason: reason
                .and_then(|info| proto::ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)))
                .and_then(ErrorReason::read),
            violations: violations.iter().map(violation).collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            rule: detail("rule").and_then(Rule::from_word),
            token_id: detail("successor").or(detail("token_id")).and_then(|id| TokenId::parse(id).ok()),
            code: Some(status.code()),
            cause: status.source().is_some().then(|| Arc::new(status.clone())),
            answered: reason.is_some(),
        }
    }
}

#[cfg(feature = "raw")]
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::of(&status)
    }
}

fn kind(status: &Status) -> ErrorKind {
    match status.code() {
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        // The transport's own error: a status from the server has no source.
        Code::Unknown | Code::Cancelled | Code::Internal if status.source().is_some() => {
            if find_cause::<TimeoutExpired>(status).is_some() {
                ErrorKind::DeadlineExceeded
            } else {
                ErrorKind::Unavailable
            }
        }
        _ => ErrorKind::Other,
    }
}

/// Returns a code as the gRPC specification spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns the error of this type that a status comes from.
fn find_cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Returns whether the server refused to begin the stream, or has closed the connection before it came to it (RFC 9113,
/// sections 6.8 and 8.7).
fn is_refusal(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

fn message(status: &Status) -> String {
    match (status.message(), status.source()) {
        ("", None) => format!("{:?}", status.code()),
        ("", Some(source)) => source.to_string(),
        (message, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn reasons_of_tokend_are_parsed_and_those_of_other_domains_ignored() {
        let detail = |reason: &str, domain: &str| {
            let metadata =
                std::collections::HashMap::from([("rule".to_owned(), "allowed_scopes".to_owned())]);
            let details = ErrorDetails::with_error_info(reason, domain, metadata);
            Error::of(&Status::with_error_details(Code::NotFound, "gone", details))
        };
        let error = detail("TOKEN_NOT_FOUND", DOMAIN);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, Some(ErrorReason::TokenNotFound)));
        assert_eq!(error.to_string(), "gone");
        assert_eq!((error.rule(), error.token_id()), (Some(Rule::AllowedScopes), None));
        let foreign = detail("TOKEN_NOT_FOUND", "example.org");
        assert_eq!((foreign.reason(), foreign.rule()), (None, None));
        assert_eq!(detail("SOMETHING_NEW", DOMAIN).reason(), None);
    }

    #[test]
    fn transport_errors_mean_that_the_outcome_is_unknown() {
        let broken = Status::from_error(std::io::Error::other("broken pipe").into());
        let broken = Error::of(&broken);
        assert_eq!(broken.kind(), ErrorKind::Unavailable);
        assert_eq!(broken.source().unwrap().to_string(), "broken pipe");
        assert!(Error::of(&Status::not_found("gone")).source().is_none());
        let overdue = Status::from_error(TimeoutExpired(()).into());
        assert_eq!(Error::of(&overdue).kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(Error::of(&Status::unknown("a server's own")).kind(), ErrorKind::Other);
    }
}
