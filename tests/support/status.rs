//! Reads refusals as a client does: the code, the reason of `google.rpc.ErrorInfo`, and the details
//! that the contract promises. No test compares messages.

use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

/// What no status may ever contain: SQL, SQLSTATEs, names of files and of crates.
const INTERNALS: [&str; 12] = [
    "SELECT", "INSERT", "UPDATE ", "relation", "column", "42P01", "08006", ".rs", "sqlx", "/tmp", "/dev/shm",
    "socket",
];

/// Checks that a call was refused with this code and reason, and with the details that belong to them.
#[track_caller]
pub(crate) fn refused<T>(outcome: Result<Response<T>, Status>, code: Code, reason: &str) -> Status {
    let Err(status) = outcome else { panic!("answered, where {code:?} {reason} was due") };
    check(&status, code, reason);
    status
}

/// Checks the code, the reason and the details of a status.
#[track_caller]
pub(crate) fn check(status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(info.domain, "tokend");
    let passing = matches!(code, Code::Unavailable | Code::ResourceExhausted);
    assert_eq!(details.retry_info().is_some(), passing, "RetryInfo of {status:?}");
    if let Some(retry) = details.retry_info() {
        assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()));
    }
    assert_eq!(details.bad_request().is_some(), code == Code::InvalidArgument, "BadRequest of {status:?}");
    let shown = format!("{} {}", status.message(), String::from_utf8_lossy(status.details()));
    for internal in INTERNALS {
        assert!(!shown.contains(internal), "{internal} in {shown}");
    }
}

/// Returns the reason of a refusal, if it has one.
pub(crate) fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// Returns the fields that a refusal names, in its order.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let request = status.get_details_bad_request().expect("a BadRequest");
    request.field_violations.into_iter().map(|violation| violation.field).collect()
}
