//! The output for a token that was revoked, disabled or enabled.

use prost_types::Timestamp;
use serde::Serialize;
use tokend_client::proto::Token;

use crate::cli::CommandError;
use crate::cli::client_error::ClientError;
use crate::cli::output::{print, print_json, rfc3339};
use crate::cli::token_fields::{TokenJson, token_lines};

/// The response as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokedJson<'a> {
    token: TokenJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_time: Option<String>,
}

impl<'a> RevokedJson<'a> {
    pub(super) fn new(token: &'a Token, effective_time: Option<Timestamp>) -> Self {
        Self { token: TokenJson::from(token), effective_time: effective_time.map(rfc3339) }
    }
}

/// Prints a token, and the time from which the change is effective.
pub(super) fn show(
    token: Option<Token>,
    effective_time: Option<Timestamp>,
    holds: &str,
    json: bool,
) -> Result<(), CommandError> {
    let token = token.ok_or(ClientError::Incomplete("token"))?;
    if json {
        let json = RevokedJson::new(&token, effective_time);
        return print_json(&[json]);
    }
    let mut text = token_lines(&token);
    if let Some(time) = effective_time {
        text.push_str(holds);
        text.push_str(&rfc3339(time));
        text.push('\n');
    }
    print(&text)
}
