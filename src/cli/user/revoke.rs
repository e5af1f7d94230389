//! `tokend user revoke`: all tokens of a user, permanently.

use clap::Args;
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::RevokeUserTokensRequest;

use super::{UserFlags, preview};
use crate::cli::CommandError;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, quoted, remark, rfc3339};
use crate::config::Environment;

/// Flags of `tokend user revoke`.
#[derive(Args)]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    user: UserFlags,

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

pub(super) async fn run(flags: RevokeFlags, environment: &Environment) -> Result<(), CommandError> {
    let (user, kind) = (&flags.user, flags.user.kind());
    let (organization_id, user_id) = (user.organization.clone(), user.user_id.clone());
    let client = Client::open(flags.user.address, environment).await?;
    if flags.dry_run {
        return preview::user(&client, organization_id, user_id, kind, flags.json).await;
    }
    let message = RevokeUserTokensRequest {
        organization_id,
        user_id: user_id.clone(),
        reason: flags.reason,
        force: flags.force,
        owner_kind: kind.into(),
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
