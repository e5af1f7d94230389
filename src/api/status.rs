//! Maps errors to statuses; the only file that names a code. Every status has a `google.rpc.ErrorInfo`
//! (AIP-193) with a reason of the contract's `ErrorReason`; bad fields also `BadRequest`, and temporary
//! errors also `RetryInfo`. Causes go to the log: no SQL and no file name leaves this process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use prost::DecodeError;
use tonic::codegen::http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::error::CallError;
use super::proto::ErrorReason;
use crate::admission::fair_limiter::Refused;
use crate::admission::request_reader::ReadError;
use crate::admission::response_memory::ResponseMemoryError;
use crate::changefeed::hub::WatchError;
use crate::domain::plans::PlanUse;
use crate::domain::{AccessError, CredentialError, Violations};
use crate::store::StoreError;
use crate::telemetry::should_log;
use crate::tokens::{ActionError, StateError};
use crate::verify::{AuthenticateError, VerdictError};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "tokend";

/// How long a caller should wait before it retries after an outage or overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<&CallError> for Status {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Authenticate(AuthenticateError::Credential(error)) => credential(*error),
            CallError::Authenticate(AuthenticateError::Undetermined(error))
            | CallError::Undetermined(error) => verdict_error(error),
            CallError::Access(error) => access(error),
            CallError::Invalid(violations) => invalid(violations),
            CallError::Action(error) => action(error),
            CallError::Refused(error) => refused(*error),
            CallError::ResponseMemory(error) => unread(*error),
            CallError::Watch(error) => watch(error),
            CallError::Exchange(error) => plain(Code::Unauthenticated, ErrorReason::LoginCodeInvalid, error),
            CallError::Panicked(_) => internal(),
        }
    }
}

fn action(error: &ActionError) -> Status {
    match error {
        ActionError::Credential(error) => credential(*error),
        ActionError::Access(error) => access(error),
        ActionError::Invalid(violations) => invalid(violations),
        ActionError::PageToken(error) => {
            let mut details = details(ErrorReason::InvalidPageToken);
            details.add_bad_request_violation("page_token", error.to_string());
            Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
        }
        ActionError::NotFound => plain(Code::NotFound, ErrorReason::TokenNotFound, error),
        ActionError::Refused(error) => refused(*error),
        ActionError::State(error) => state(*error),
        ActionError::LastRoot(error) => plain(Code::FailedPrecondition, ErrorReason::LastRootToken, error),
        ActionError::Policy(rule) => {
            let named = Some(("rule", rule.word().to_owned()));
            naming(Code::FailedPrecondition, ErrorReason::PolicyForbids, rule, named)
        }
        ActionError::PlanNotFound => plain(Code::NotFound, ErrorReason::PlanNotFound, error),
        ActionError::PlanIsDefault => plain(Code::FailedPrecondition, ErrorReason::PlanInUse, error),
        ActionError::PlanInUse(found) => plan_in_use(found),
        ActionError::NoSuchPlan(_) => plain(Code::FailedPrecondition, ErrorReason::PlanNotFound, error),
        ActionError::NoLink(error) => {
            plain(Code::FailedPrecondition, ErrorReason::ConsoleLinkUnavailable, error)
        }
        ActionError::RequestIdReused => plain(Code::AlreadyExists, ErrorReason::RequestIdReused, error),
        ActionError::Unrepeatable(token_id) => {
            let named = Some(("token_id", token_id.to_string()));
            naming(Code::AlreadyExists, ErrorReason::RequestNotRepeatable, error, named)
        }
        ActionError::Overloaded(error) => transient(ErrorReason::Overloaded, error),
        ActionError::Store(error) => store(error),
        ActionError::Minting(_) => internal(),
    }
}

fn verdict_error(error: &VerdictError) -> Status {
    match error {
        VerdictError::Store(error) => store(error),
        VerdictError::Shared(error) => store(error),
        VerdictError::Refused(error) => refused(*error),
        VerdictError::Overloaded(error) => transient(ErrorReason::Overloaded, error),
        VerdictError::NoSuchLimit => plain(Code::InvalidArgument, ErrorReason::LimitNotFound, error),
        // No verdict is known, and the operator has to act: the log says how.
        VerdictError::DurableHash(error) => transient(ErrorReason::Internal, error),
    }
}

fn store(error: &StoreError) -> Status {
    match error {
        StoreError::Starting
        | StoreError::Unavailable(_)
        | StoreError::DeadlineExceeded
        | StoreError::OtherServer
        | StoreError::Clock
        | StoreError::Unconfirmed => transient(ErrorReason::DatabaseUnavailable, error),
        StoreError::Refused(_) | StoreError::Corrupt { .. } | StoreError::BeforeCommit(_) => internal(),
    }
}

fn watch(error: &WatchError) -> Status {
    match error {
        WatchError::TooOld => plain(Code::FailedPrecondition, ErrorReason::PositionTooOld, error),
        WatchError::TooSlow => transient_over_share(ErrorReason::WatcherTooSlow, error),
        WatchError::Busy(error) => refused(*error),
        WatchError::Store(error) => store(error),
    }
}

fn refused(error: Refused) -> Status {
    match error {
        Refused::Full => transient(ErrorReason::Overloaded, &error),
        Refused::OverShare => transient_over_share(ErrorReason::CallerOverShare, &error),
    }
}

fn unread(error: ResponseMemoryError) -> Status {
    match error {
        ResponseMemoryError::Full => transient(ErrorReason::Overloaded, &error),
        ResponseMemoryError::OverShare => transient_over_share(ErrorReason::CallerOverShare, &error),
        ResponseMemoryError::Busy(error) => refused(error),
    }
}

/// Refuses a caller that is over its share, for now.
fn transient_over_share(reason: ErrorReason, message: &impl ToString) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, message.to_string(), details)
}

fn credential(error: CredentialError) -> Status {
    let reason = match error {
        CredentialError::Missing => ErrorReason::CredentialMissing,
        CredentialError::Malformed => ErrorReason::CredentialMalformed,
        // No call of an RPC comes from a portal session.
        CredentialError::Invalid | CredentialError::PortalOver => ErrorReason::CredentialInvalid,
        CredentialError::Expired => ErrorReason::CredentialExpired,
        CredentialError::Revoked => ErrorReason::CredentialRevoked,
        CredentialError::Disabled => ErrorReason::CredentialDisabled,
        CredentialError::IpNotAllowed => ErrorReason::CredentialIpNotAllowed,
    };
    plain(Code::Unauthenticated, reason, &error)
}

fn access(error: &AccessError) -> Status {
    if let AccessError::Exceeds(bound) = error {
        let named = Some(("bound", bound.word().to_owned()));
        return naming(Code::PermissionDenied, ErrorReason::GrantExceeded, error, named);
    }
    let (reason, scope) = match error {
        AccessError::MissingScope(scope) => (ErrorReason::ScopeMissing, Some(scope)),
        AccessError::ForeignOrganization => (ErrorReason::OrganizationForbidden, None),
        AccessError::Privileged(scope) => (ErrorReason::PrivilegedToken, Some(scope)),
        AccessError::OutlivesCaller | AccessError::WiderNetworks | AccessError::Exceeds(_) => {
            (ErrorReason::PrivilegedToken, None)
        }
    };
    let named = scope.map(|scope| ("scope", scope.word().to_owned()));
    naming(Code::PermissionDenied, reason, error, named)
}

fn state(error: StateError) -> Status {
    let (reason, successor) = match error {
        StateError::Revoked => (ErrorReason::TokenRevoked, None),
        StateError::Expired => (ErrorReason::TokenExpired, None),
        StateError::Disabled => (ErrorReason::TokenDisabled, None),
        StateError::UserDisabled => (ErrorReason::UserDisabled, None),
        StateError::Rotated(successor) => (ErrorReason::TokenRotated, Some(successor)),
    };
    naming(Code::FailedPrecondition, reason, &error, successor.map(|id| ("successor", id.to_string())))
}

fn plan_in_use(found: &PlanUse) -> Status {
    let ids = found.first.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let metadata = [("tokens".to_owned(), found.tokens.to_string()), ("token_ids".to_owned(), ids)];
    let reason = word(ErrorReason::PlanInUse);
    let details =
        ErrorDetails::with_error_info(reason, DOMAIN, metadata.into_iter().collect::<HashMap<_, _>>());
    Status::with_error_details(Code::FailedPrecondition, found.to_string(), details)
}

/// Builds a status whose `ErrorInfo` metadata names something.
fn naming(code: Code, reason: ErrorReason, message: &impl ToString, named: Option<(&str, String)>) -> Status {
    let metadata = named.map(|(key, value)| (key.to_owned(), value));
    let details =
        ErrorDetails::with_error_info(word(reason), DOMAIN, metadata.into_iter().collect::<HashMap<_, _>>());
    Status::with_error_details(code, message.to_string(), details)
}

fn invalid(violations: &Violations) -> Status {
    let mut details = details(ErrorReason::InvalidField);
    let mut message = String::from("the request is not valid");
    for (index, violation) in violations.list().iter().enumerate() {
        details.add_bad_request_violation(&violation.field, &violation.description);
        message.push_str(if index == 0 { ": " } else { "; " });
        message.push_str(&violation.field);
        message.push(' ');
        message.push_str(&violation.description);
    }
    if violations.more() > 0 {
        message.push_str("; and ");
        message.push_str(&violations.more().to_string());
        message.push_str(" more");
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn internal() -> Status {
    plain(Code::Internal, ErrorReason::Internal, &"an internal error; see the server's log")
}

fn transient(reason: ErrorReason, message: &impl ToString) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, message.to_string(), details)
}

fn plain(code: Code, reason: ErrorReason, message: &impl ToString) -> Status {
    Status::with_error_details(code, message.to_string(), details(reason))
}

fn details(reason: ErrorReason) -> ErrorDetails {
    ErrorDetails::with_error_info(word(reason), DOMAIN, HashMap::new())
}

/// Returns the reason as `ErrorInfo` spells it: the enum value's name without the enum's prefix.
fn word(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// Refuses a peer that leaves its refusals unread.
pub(crate) fn refusals_unread() -> Status {
    unread(ResponseMemoryError::OverShare)
}

/// Returns the status of a stream that ends because the server or its connection does.
pub(crate) fn shutting_down() -> Status {
    transient(ErrorReason::ShuttingDown, &"this replica or this connection is ending; call again")
}

/// Logs why a call failed: the caller's mistakes at info, the server's failures at warn with their
/// causes. Of many with the same reason, above all to the same network, only the first is logged.
pub(crate) fn log(error: &CallError, status: &Status, duration_ms: Option<f64>, peer: Option<IpAddr>) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    if !should_log(reason.as_deref().unwrap_or("UNKNOWN"), peer) {
        return;
    }
    let code = tracing::field::debug(status.code());
    if is_our_fault(status) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(duration_ms, code, error, "failed");
    } else {
        tracing::info!(duration_ms, code, reason = %error, "refused");
    }
}

/// Returns the status of a compressed message without a stated encoding. The text is tonic's, also
/// for `too_long`, `undecodable` and `cut_off`.
pub(crate) fn compressed(flag: u8) -> Status {
    Status::internal(match flag {
        1 => "protocol error: received message with compressed-flag but no grpc-encoding was specified"
            .to_owned(),
        _ => format!(
            "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and 1), while \
             sending request"
        ),
    })
}

/// Returns the status of a message that is too long.
pub(crate) fn too_long(length: usize, limit: usize) -> Status {
    Status::out_of_range(format!(
        "Error, decoded message length too large: found {length} bytes, the limit is: {limit} bytes"
    ))
}

/// Returns the status of a request that was not read to its end.
pub(crate) fn unread_request(error: &ReadError) -> Status {
    match error {
        ReadError::TooLong(most) => Status::out_of_range(format!("the limit of a message is: {most} bytes")),
        ReadError::TooLate => Status::deadline_exceeded(error.to_string()),
        ReadError::Refused(refused) => Status::from(&CallError::from(*refused)),
        ReadError::Body(_) => Status::cancelled(error.to_string()),
    }
}

/// Returns the status of bytes that are not a valid message.
pub(crate) fn undecodable(error: &DecodeError) -> Status {
    Status::internal(error.to_string())
}

/// Returns the status of a call that ended within a message.
pub(crate) fn cut_off() -> Status {
    Status::internal("Unexpected EOF decoding stream.")
}

/// Returns whether the client cancelled the call.
pub(crate) fn is_cancelled(status: &Status) -> bool {
    status.code() == Code::Cancelled
}

/// Returns the status of a call that took longer than its client waits.
pub(crate) fn too_late() -> Status {
    Status::deadline_exceeded("the time that grpc-timeout allows for the call is over")
}

/// Returns the HTTP status that corresponds to a gRPC status. Anything that was not determined is
/// 503, so that no client takes it for a verdict.
pub(crate) fn http_status(status: &Status) -> StatusCode {
    match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns the number of the code that belongs to an HTTP status in a reply to Envoy.
pub(crate) fn check_code(status: StatusCode) -> i32 {
    let code = match status {
        StatusCode::OK => Code::Ok,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    code.into()
}

/// Returns whether the server, rather than the request, is why a call failed.
fn is_our_fault(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Internal)
}
