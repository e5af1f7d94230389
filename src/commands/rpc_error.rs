//! A refusal of a running tokend, made readable: first what it says, then code and reason.
//!
//! The operator's commands turn every gRPC status into one of these. What the server says is
//! escaped, so that no answer can play with the terminal.

use std::fmt;
use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt;

use super::output::printable;

/// What a server answered in place of a result.
#[derive(Debug)]
pub struct RpcError {
    message: String,
    code: &'static str,
    reason: Option<String>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
}

impl std::error::Error for RpcError {}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        let violations =
            status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
        Self {
            message: status.message().to_owned(),
            code: code_name(status.code()),
            reason: status.get_details_error_info().map(|info| info.reason),
            violations: violations
                .into_iter()
                .map(|violation| (violation.field, violation.description))
                .collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            formatter.write_str("the server refused")?;
        } else {
            formatter.write_str(&printable(&self.message))?;
        }
        // Those that the message tells already are not repeated.
        for (field, description) in self.violations.iter().filter(|(_, said)| !self.message.contains(said)) {
            let (field, description) = (printable(field), printable(description));
            write!(formatter, "\n  {field}: {description}")?;
        }
        write!(formatter, "\n  code: {}", self.code)?;
        if let Some(reason) = &self.reason {
            write!(formatter, "\n  reason: {}", printable(reason))?;
        }
        if let Some(delay) = self.retry_after {
            write!(formatter, "\n  try again after: {}", humantime::format_duration(delay))?;
        }
        Ok(())
    }
}

/// The code's name in the gRPC specification.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_fields_code_and_reason() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("INVALID_FIELD", "tokend", HashMap::new())
            .add_bad_request_violation("name", "must not be empty\u{1b}[2J")
            .set_retry_info(Some(Duration::from_secs(2)));
        let status =
            Status::with_error_details(tonic::Code::InvalidArgument, "the request is not valid", details);

        let text = RpcError::from(status).to_string();

        assert_eq!(
            text,
            "the request is not valid\n  name: must not be empty\\u{1b}[2J\n  \
             code: INVALID_ARGUMENT\n  reason: INVALID_FIELD\n  try again after: 2s"
        );
    }

    #[test]
    fn what_the_message_says_is_not_said_again() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("name", "must not be empty");
        let message = "the request is not valid: name must not be empty";
        let status = Status::with_error_details(tonic::Code::InvalidArgument, message, details);

        let text = RpcError::from(status).to_string();

        assert_eq!(text, format!("{message}\n  code: INVALID_ARGUMENT"));
    }
}
