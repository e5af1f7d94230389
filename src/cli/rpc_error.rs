//! A refusal by a running tokend, formatted for people: its message first, then code and reason.
//! The server's text is escaped, so that no response can control the terminal.

use std::fmt;

use super::output::printable;
use crate::config::DisplayDuration;

/// An error response of a server.
#[derive(Debug)]
pub struct RpcError(Box<tokend_client::Error>);

impl std::error::Error for RpcError {}

impl From<tokend_client::Error> for RpcError {
    fn from(error: tokend_client::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0.to_string();
        formatter.write_str(&printable(&message))?;
        // Violations that the message already contains are not repeated.
        for violation in self.0.violations().iter().filter(|found| !message.contains(&found.description)) {
            let (field, description) = (printable(&violation.field), printable(&violation.description));
            write!(formatter, "\n  {field}: {description}")?;
        }
        if let Some(code) = self.0.code() {
            write!(formatter, "\n  code: {code}")?;
        }
        if let Some(reason) = self.0.reason() {
            write!(formatter, "\n  reason: {}", reason.word())?;
        }
        if let Some(delay) = self.0.retry_after() {
            write!(formatter, "\n  try again after: {}", DisplayDuration(delay))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn a_refusal_is_printed_with_its_fields_code_and_reason() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("INVALID_FIELD", "tokend", HashMap::new())
            .add_bad_request_violation("name", "must not be empty\u{1b}[2J")
            .set_retry_info(Some(Duration::from_secs(2)));
        let status =
            Status::with_error_details(tonic::Code::InvalidArgument, "the request is not valid", details);

        let text = RpcError::from(tokend_client::Error::from(status)).to_string();

        assert_eq!(
            text,
            "the request is not valid\n  name: must not be empty\\u{1b}[2J\n  \
             code: INVALID_ARGUMENT\n  reason: INVALID_FIELD\n  try again after: 2s"
        );
    }

    #[test]
    fn details_that_the_message_contains_are_not_repeated() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("name", "must not be empty");
        let message = "the request is not valid: name must not be empty";
        let status = Status::with_error_details(tonic::Code::InvalidArgument, message, details);

        let text = RpcError::from(tokend_client::Error::from(status)).to_string();

        assert_eq!(text, format!("{message}\n  code: INVALID_ARGUMENT"));
    }
}
