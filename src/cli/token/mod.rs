//! `tokend token …`: the operator's commands on tokens, over gRPC, in a running tokend. One file
//! per subcommand. Results go to standard output, as a table or as JSON; the caller's secret comes
//! from the environment, a secret to verify from standard input.

mod create;
mod disable;
mod get;
mod grant;
mod limits;
mod list;
pub(super) mod preview;
mod revoke;
mod revoked;
mod rotate;
mod update;
mod verify;

pub(super) use verify::NOT_VALID;

use std::process::ExitCode;

use clap::Subcommand;

use super::{CommandError, single_threaded};
use crate::config::Environment;

pub(super) const CALLER_HELP: &str = "Environment: TOKEND_SECRET holds the caller's own secret; otherwise \
     TOKEND_SECRET_FILE names the file that holds it; otherwise it is that of tokend login.";

/// `tokend token …`
#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print only its secret on standard output
    ///
    /// The token's fields go to standard error. The secret is shown only this once. Exactly one of
    /// --expire-time, --ttl and --no-expiration must be chosen.
    #[command(after_help = CALLER_HELP)]
    Create(create::CreateFlags),
    /// Show a token by its id
    #[command(after_help = CALLER_HELP)]
    Get(get::GetFlags),
    /// Show what is left of a token's limits
    #[command(after_help = CALLER_HELP)]
    Limits(limits::LimitsFlags),
    /// List tokens, newest first
    #[command(after_help = CALLER_HELP)]
    List(list::ListFlags),
    /// Change a token's name, scopes, labels, networks, expiration or grant
    ///
    /// Changes only what the command line names.
    #[command(after_help = CALLER_HELP)]
    Update(update::UpdateFlags),
    /// Replace a token by a new one and print only the new secret on standard output
    ///
    /// Owner, name, scopes, labels, networks and grant stay the same; the old token ends after the grace period. Any
    /// token may rotate itself, with a grace period of at least 1m.
    #[command(after_help = CALLER_HELP)]
    Rotate(rotate::RotateFlags),
    /// Revoke a token permanently, and the tokens that were rotated from it
    ///
    /// Revoking it again changes nothing: the first time and reason stay. Anyone who has a token's secret may
    /// revoke it, with --from-stdin.
    #[command(after_help = CALLER_HELP)]
    Revoke(revoke::RevokeFlags),
    /// Disable a token until it is enabled again
    ///
    /// For a suspicion that is not confirmed. Tokens that were rotated from it stay in use.
    #[command(after_help = CALLER_HELP)]
    Disable(disable::DisableFlags),
    /// Enable a disabled token again
    #[command(after_help = CALLER_HELP)]
    Enable(disable::EnableFlags),
    /// Verify a secret that is read from standard input
    ///
    /// Exit status: 0 the secret is valid, 3 it is not valid (any other verdict), 1 the verdict is not known
    /// (an error), 2 wrong usage.
    #[command(after_help = CALLER_HELP)]
    Verify(verify::VerifyFlags),
}

impl TokenCommand {
    /// Returns whether nothing is lost if the rest of the output is not read.
    pub(super) fn only_shows(&self) -> bool {
        !matches!(self, Self::Create(_) | Self::Rotate(_) | Self::Verify(_))
    }
}

/// Runs a token command to its end.
pub(super) fn run(command: TokenCommand, environment: &Environment) -> Result<ExitCode, CommandError> {
    single_threaded()?.block_on(async {
        match command {
            TokenCommand::Create(flags) => create::run(flags, environment).await?,
            TokenCommand::Get(flags) => get::run(flags, environment).await?,
            TokenCommand::Limits(flags) => limits::run(flags, environment).await?,
            TokenCommand::List(flags) => list::run(flags, environment).await?,
            TokenCommand::Update(flags) => update::run(flags, environment).await?,
            TokenCommand::Rotate(flags) => rotate::run(flags, environment).await?,
            TokenCommand::Revoke(flags) => revoke::run(flags, environment).await?,
            TokenCommand::Disable(flags) => disable::disable(flags, environment).await?,
            TokenCommand::Enable(flags) => disable::enable(flags, environment).await?,
            TokenCommand::Verify(flags) => return verify::run(flags, environment).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}
