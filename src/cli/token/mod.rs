//! `tokend token …`: the operator's commands on tokens, over gRPC, in a running tokend. One file
//! per subcommand. Results go to standard output, as a table or as JSON; the caller's secret comes
//! from the environment, a secret to verify from standard input.

mod create;
mod disable;
mod get;
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
use rand::TryRng as _;
use zeroize::Zeroizing;

use super::{CommandError, single_threaded};
use crate::clock;
use crate::config::Environment;

pub(super) const CALLER: &str = "Environment: TOKEND_SECRET holds the caller's own secret, else \
    TOKEND_SECRET_FILE names the file that holds it.";

/// `tokend token …`
#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print its secret alone on standard output
    ///
    /// What the token is goes to standard error. The secret is shown this once. Exactly one of
    /// --expire-time, --ttl and --no-expiration must be chosen.
    #[command(after_help = CALLER)]
    Create(create::CreateFlags),
    /// Show a token by its id
    #[command(after_help = CALLER)]
    Get(get::GetFlags),
    /// List tokens, newest first
    #[command(after_help = CALLER)]
    List(list::ListFlags),
    /// Change a token: its name, scopes, labels, networks or end
    ///
    /// Only what is named on the command line is changed.
    #[command(after_help = CALLER)]
    Update(update::UpdateFlags),
    /// Put a new token in a token's place and print its secret alone on standard output
    ///
    /// Owner, name, scopes, labels and networks stay; the old token ends after the grace. Any token
    /// may rotate itself, with a grace of at least 1m.
    #[command(after_help = CALLER)]
    Rotate(rotate::RotateFlags),
    /// Revoke a token for good, and what was rotated from it
    ///
    /// Revoking again changes nothing: the first time and reason stay. Whoever has a token's secret
    /// may revoke it so: --from-stdin.
    #[command(after_help = CALLER)]
    Revoke(revoke::RevokeFlags),
    /// Put a token out of use until it is enabled again
    ///
    /// For what is suspected but not known. What was rotated from it stays in use.
    #[command(after_help = CALLER)]
    Disable(disable::DisableFlags),
    /// Take a disabled token into use again
    #[command(after_help = CALLER)]
    Enable(disable::SwitchFlags),
    /// Judge a secret that is read from standard input
    ///
    /// Exit status: 0 the secret is valid, 3 it is not, whatever the verdict, 1 nothing is known
    /// (an error), 2 wrong usage.
    #[command(after_help = CALLER)]
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

/// Creates the id of a request that may be repeated. Shown only to the caller, if the response is lost.
fn new_request_id() -> Result<String, CommandError> {
    let mut bytes = Zeroizing::new([0; 16]);
    clock::randomness().try_fill_bytes(bytes.as_mut_slice()).map_err(CommandError::Random)?;
    Ok(uuid::Builder::from_random_bytes(*bytes).into_uuid().to_string())
}
