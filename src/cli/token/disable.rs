//! `tokend token disable` and `tokend token enable`: by id, which is not secret and may be on a
//! command line.

use clap::Args;
use tokend_client::Repeatable;
use tokend_client::proto::{DisableTokenRequest, EnableTokenRequest};

use super::revoked::show;
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client};
use crate::config::Environment;

/// Flags of `tokend token disable`.
#[derive(Args)]
pub(crate) struct DisableFlags {
    #[command(flatten)]
    token: EnableFlags,

    /// Reason, for people who read the audit log; at most 500 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    /// Disable it even if no active root token is left
    #[arg(long)]
    force: bool,
}

/// Flags of both commands.
#[derive(Args)]
pub(crate) struct EnableFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id)]
    token_id: String,

    /// Print the whole response as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn disable(flags: DisableFlags, environment: &Environment) -> Result<(), CommandError> {
    let DisableFlags { token: flags, reason, force } = flags;
    let client = Client::open(flags.address, environment).await?;
    let message = DisableTokenRequest { token_id: flags.token_id, force, reason };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.disable_token(request).await });
    let answer = answer.await?;
    show(answer.token, answer.effective_time, "refused everywhere from ", flags.json)
}

pub(super) async fn enable(flags: EnableFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let message = EnableTokenRequest { token_id: flags.token_id };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.enable_token(request).await });
    let answer = answer.await?;
    show(answer.token, answer.effective_time, "accepted everywhere from ", flags.json)
}
