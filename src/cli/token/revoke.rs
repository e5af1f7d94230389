//! `tokend token revoke`: by id, which is not secret and may be on a command line, or by a secret
//! from standard input.

use clap::Args;
use secrecy::ExposeSecret;
use tokend_client::Repeatable;
use tokend_client::proto::RevokeTokenRequest;
use tokend_client::proto::revoke_token_request::Target;

use super::preview;
use super::revoked::show;
use super::verify::presented;
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client};
use crate::config::Environment;

/// Flags of `tokend token revoke`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are")]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id, required_unless_present = "from_stdin", conflicts_with = "from_stdin")]
    token_id: Option<String>,

    /// Read the token's secret from standard input instead; anyone who has the secret may revoke the token
    #[arg(long)]
    from_stdin: bool,

    /// Do not revoke the tokens that were rotated from this one
    #[arg(long)]
    only_this: bool,

    /// Revoke nothing: print the tokens that would be revoked; needs tokend:read as well
    #[arg(long, conflicts_with_all = ["from_stdin", "force", "reason"])]
    dry_run: bool,

    /// Revoke it even if no active root token is left
    #[arg(long, conflicts_with = "from_stdin")]
    force: bool,

    /// Reason, for people who read the list; at most 500 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    /// Print the whole response as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(flags: RevokeFlags, environment: &Environment) -> Result<(), CommandError> {
    let target = match flags.token_id {
        Some(id) if flags.dry_run => {
            let client = Client::open(flags.address, environment).await?;
            return preview::token(&client, id, flags.only_this, flags.json).await;
        }
        Some(id) => Target::TokenId(id),
        None => Target::Secret(presented()?.expose_secret().to_owned()),
    };
    let client = Client::open(flags.address, environment).await?;
    let message = RevokeTokenRequest {
        target: Some(target),
        reason: flags.reason,
        only_this: flags.only_this,
        force: flags.force,
    };
    let answer = client
        .call(Repeatable::Yes, message, |mut raw, request| async move { raw.revoke_token(request).await });
    let answer = answer.await?;
    show(answer.token, answer.effective_time, "refused everywhere from ", flags.json)
}
