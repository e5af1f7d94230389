//! `tokend token verify`: prints the verdict on a secret from standard input, never from an
//! argument, with an exit status for scripts.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{Consistency, LimitKind, LimitStatus, Verdict, VerifyRequest, VerifyResponse};
use zeroize::Zeroizing;

use crate::api::message_json::MessageJson;
use crate::cli::CommandError;
use crate::cli::caller::first_line;
use crate::cli::client::{AddressFlag, Client, ClientError};
use crate::cli::output::{json_line, print_if_read, printable, remark, rfc3339};
use crate::cli::token_fields::{TokenJson, token_lines};
use crate::config::Environment;

/// The exit status of a secret that is not valid; distinct from every error.
pub(crate) const NOT_VALID: u8 = 3;

/// More than any secret, less than the server's limit on a message: a longer text would be refused.
const MAX_BYTES: u64 = 32 * 1024;

/// Flags of `tokend token verify`.
#[derive(Args)]
pub(crate) struct VerifyFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Scope that the token must cover; may be repeated
    #[arg(long = "require-scope", value_name = "SCOPE")]
    required_scopes: Vec<String>,

    /// Address of the client that presented the secret
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    client_ip: String,

    /// How much a valid token spends of each limit of its plan; 0 spends nothing
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    cost: u32,

    /// Judge and spend only the limit with this name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    limit: String,

    /// Print the whole response as one JSON object
    #[arg(long)]
    json: bool,
}

/// The response as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedJson<'a> {
    verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenJson<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing_scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<MessageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
}

/// The fields of a limit that are shown even when they are empty.
const ALWAYS_OF_LIMIT: [&str; 4] = ["name", "kind", "limit", "remaining"];

pub(super) async fn run(flags: VerifyFlags, environment: &Environment) -> Result<ExitCode, CommandError> {
    let secret = presented()?;
    let client = Client::open(flags.address, environment).await?;
    let message = VerifyRequest {
        secret: secret.expose_secret().to_owned(),
        required_scopes: flags.required_scopes,
        client_ip: flags.client_ip,
        consistency: Consistency::Bounded.into(),
        cost: Some(flags.cost),
        limit: flags.limit,
    };
    // A repeat could spend twice.
    let repeatable = if flags.cost == 0 { Repeatable::Yes } else { Repeatable::IfNotProcessed };
    let answer =
        client.call(repeatable, message, |mut raw, request| async move { raw.verify(request).await });
    let answer = answer.await?;
    let text = if flags.json {
        let verified = VerifiedJson {
            verdict: verdict_name(answer.verdict),
            token: answer.token.as_ref().map(TokenJson::from),
            missing_scopes: &answer.missing_scopes,
            as_of_time: answer.as_of_time.map(rfc3339),
            limits: limits_json(&answer.limits),
            retry_after: answer.retry_after.map(|time| time.to_string()),
        };
        json_line(&verified).map_err(CommandError::Output)?
    } else {
        describe(&answer)
    };
    // The exit status has the verdict even if the output is not read.
    print_if_read(&text)?;
    Ok(if answer.verdict() == Verdict::Valid { ExitCode::SUCCESS } else { ExitCode::from(NOT_VALID) })
}

/// Reads the secret without one line ending. Bytes that are not UTF-8 are no secret either: they
/// become a malformed one.
pub(crate) fn presented() -> Result<SecretString, CommandError> {
    let input = io::stdin();
    if input.is_terminal() {
        remark("reading a secret from standard input; end with Enter and Ctrl-D\n");
    }
    let mut bytes = Zeroizing::new(Vec::new());
    input.lock().take(MAX_BYTES).read_to_end(&mut bytes).map_err(ClientError::Input)?;
    Ok(first_line(&String::from_utf8_lossy(&bytes)))
}

/// Returns the verdict's enum name, or the number of an unknown one.
fn verdict_name(number: i32) -> String {
    Verdict::try_from(number)
        .map_or_else(|unknown| unknown.0.to_string(), |verdict| verdict.as_str_name().to_owned())
}

fn limits_json(limits: &[LimitStatus]) -> Vec<MessageJson> {
    limits.iter().map(|limit| MessageJson::new("LimitStatus", limit, &ALWAYS_OF_LIMIT)).collect()
}

/// Formats a limit for people: `limit reads: 7 of 10 left`.
fn limit_line(limit: &LimitStatus) -> String {
    let name = printable(&limit.name);
    let most = if limit.kind() == LimitKind::Rate { format!(" of {}", limit.limit) } else { String::new() };
    let outage = if limit.admitted_in_outage { ", without the database" } else { "" };
    format!("limit {name}: {}{most} left{outage}\n", limit.remaining)
}

/// Formats the response for people: the verdict first, alone on its line.
fn describe(answer: &VerifyResponse) -> String {
    let name = verdict_name(answer.verdict);
    let mut text = name.trim_start_matches("VERDICT_").to_owned();
    text.push('\n');
    if !answer.missing_scopes.is_empty() {
        text.push_str("missing scopes: ");
        text.push_str(&printable(&answer.missing_scopes.join(" ")));
        text.push('\n');
    }
    for limit in &answer.limits {
        text.push_str(&limit_line(limit));
    }
    if let Some(time) = &answer.retry_after {
        let _ = writeln!(text, "retry after: {time}");
    }
    if let Some(token) = &answer.token {
        text.push_str(&token_lines(token));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokend_client::proto::Token;

    #[test]
    fn the_verdict_comes_first_and_the_missing_scopes_are_named() {
        let answer = VerifyResponse {
            verdict: Verdict::MissingScope.into(),
            token: Some(Token { id: "id".to_owned(), ..Token::default() }),
            missing_scopes: vec!["a:b".to_owned(), "c:d".to_owned()],
            limits: vec![LimitStatus {
                name: "reads".to_owned(),
                kind: LimitKind::Rate.into(),
                limit: 10,
                remaining: 7,
                ..LimitStatus::default()
            }],
            ..VerifyResponse::default()
        };

        let text = describe(&answer);

        assert!(
            text.starts_with("MISSING_SCOPE\nmissing scopes: a:b c:d\nlimit reads: 7 of 10 left\nid "),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_verdict_is_printed_as_its_number_and_admits_nobody() {
        let answer = VerifyResponse { verdict: 99, ..VerifyResponse::default() };

        assert_eq!(describe(&answer), "99\n");
        assert_ne!(answer.verdict(), Verdict::Valid);
    }
}
