//! `tokend user disable` and `tokend user enable`.

use clap::Args;
use prost_types::Timestamp;
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{DisableUserRequest, EnableUserRequest};

use super::UserFlags;
use crate::cli::CommandError;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, quoted, rfc3339};
use crate::config::Environment;

/// Flags of `tokend user disable`.
#[derive(Args)]
pub(crate) struct DisableFlags {
    #[command(flatten)]
    user: UserFlags,

    /// Reason, for people who read the list of users and the audit log; at most 500 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    /// Disable the user even if no active root token is left
    #[arg(long)]
    force: bool,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `tokend user enable`.
#[derive(Args)]
pub(crate) struct EnableFlags {
    #[command(flatten)]
    user: UserFlags,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// The response as JSON; a 64-bit number is a string there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerJson {
    organization_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_count: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled_count: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_time: Option<String>,
}

pub(super) async fn disable(flags: DisableFlags, environment: &Environment) -> Result<(), CommandError> {
    let owner_kind = flags.user.kind().into();
    let user = flags.user;
    let client = Client::open(user.address, environment).await?;
    let message = DisableUserRequest {
        organization_id: user.organization,
        user_id: user.user_id.clone(),
        reason: flags.reason,
        force: flags.force,
        owner_kind,
    };
    // Not retried automatically: a repeat would count 0.
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.disable_user(request).await });
    let answer = answer.await?;
    if flags.json {
        return print_json(&[AnswerJson {
            organization_id: answer.organization_id,
            disabled_count: Some(answer.disabled_count.to_string()),
            enabled_count: None,
            disable_time: answer.disable_time.map(rfc3339),
            effective_time: answer.effective_time.map(rfc3339),
        }]);
    }
    let since = answer.disable_time.map(rfc3339).unwrap_or_default();
    let text = format!(
        "disabled {} in the organization {} since {since}\n{} tokens put out of use by this call\n{}",
        quoted(&user.user_id),
        quoted(&answer.organization_id),
        answer.disabled_count,
        holds("refused everywhere from", answer.effective_time)
    );
    print(&text)
}

pub(super) async fn enable(flags: EnableFlags, environment: &Environment) -> Result<(), CommandError> {
    let owner_kind = flags.user.kind().into();
    let user = flags.user;
    let client = Client::open(user.address, environment).await?;
    let message =
        EnableUserRequest { organization_id: user.organization, user_id: user.user_id.clone(), owner_kind };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.enable_user(request).await });
    let answer = answer.await?;
    if flags.json {
        return print_json(&[AnswerJson {
            organization_id: answer.organization_id,
            disabled_count: None,
            enabled_count: Some(answer.enabled_count.to_string()),
            disable_time: None,
            effective_time: answer.effective_time.map(rfc3339),
        }]);
    }
    let text = format!(
        "enabled  {} in the organization {}\n{} tokens no longer out of use on account of the user\n{}",
        quoted(&user.user_id),
        quoted(&answer.organization_id),
        answer.enabled_count,
        holds("accepted everywhere from", answer.effective_time)
    );
    print(&text)
}

fn holds(what: &str, effective_time: Option<Timestamp>) -> String {
    effective_time.map(|time| format!("{what} {}\n", rfc3339(time))).unwrap_or_default()
}
