//! `tokend user …`: the operator's commands on all tokens of a user.

use clap::{Args, Subcommand};
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::RevokeUserTokensRequest;

use super::client::{AddressFlag, Client};
use super::output::{print, print_json, quoted, remark, rfc3339};
use super::token::{CALLER, preview};
use super::{CommandError, single_threaded};
use crate::config::Environment;

/// `tokend user …`
#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Revoke all tokens of a user permanently
    ///
    /// In one organization, for a user who leaves. Stop creating tokens for the user first: a token that is
    /// created later stays active.
    #[command(after_help = CALLER)]
    Revoke(RevokeFlags),
}

/// Flags of `tokend user revoke`.
#[derive(Args)]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// The user
    user_id: String,

    /// Organization of the user [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Revoke nothing: print the tokens that would be revoked; needs tokend:read as well
    #[arg(long, conflicts_with_all = ["force", "reason"])]
    dry_run: bool,

    /// Revoke them even if no active root token is left
    #[arg(long)]
    force: bool,

    /// Reason, for people who read the list; at most 500 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// The response as JSON; a 64-bit number is a string there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedJson {
    revoked_count: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_time: Option<String>,
    organization_id: String,
}

/// Runs a user command to its end.
pub(super) fn run(command: UserCommand, environment: &Environment) -> Result<(), CommandError> {
    let UserCommand::Revoke(flags) = command;
    single_threaded()?.block_on(revoke(flags, environment))
}

async fn revoke(flags: RevokeFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment)?;
    if flags.dry_run {
        return preview::user(&client, flags.organization, flags.user_id, flags.json).await;
    }
    let user_id = flags.user_id;
    let message = RevokeUserTokensRequest {
        organization_id: flags.organization,
        user_id: user_id.clone(),
        reason: flags.reason,
        force: flags.force,
    };
    // Not retried automatically: a repeat would count 0.
    let answer = client.call(Repeatable::No, message, |mut raw, request| async move {
        raw.revoke_user_tokens(request).await
    });
    let answer = answer.await?;
    let organization = quoted(&answer.organization_id);
    if answer.revoked_count == 0 {
        remark(&format!(
            "nothing was revoked: in the organization {organization} there was no token of {} left to \
             revoke; choose another organization with --organization\n",
            quoted(&user_id)
        ));
    }
    let effective_time = answer.effective_time.map(rfc3339);
    if flags.json {
        return print_json(&[RevokedJson {
            revoked_count: answer.revoked_count.to_string(),
            effective_time,
            organization_id: answer.organization_id,
        }]);
    }
    let mut text = format!("revoked  {} in the organization {organization}\n", answer.revoked_count);
    if let Some(time) = effective_time.filter(|_| answer.revoked_count > 0) {
        text.push_str("refused everywhere from ");
        text.push_str(&time);
        text.push('\n');
    }
    print(&text)
}
