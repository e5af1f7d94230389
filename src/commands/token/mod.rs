//! `tokend token …`: what an operator does with tokens, over gRPC, to a running tokend.
//!
//! One file a subcommand. Results go to standard output, as a table or as JSON; the caller's
//! secret comes from the environment, a secret to verify from standard input.

mod create;
mod get;
mod list;
mod revoke;
mod update;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::{CommandError, single_threaded};
use crate::config::Environment;

const CALLER: &str = "Environment: TOKEND_SECRET holds the caller's own secret, else \
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
    /// Revoke a token for good
    ///
    /// Revoking again changes nothing: the first time and reason stay.
    #[command(after_help = CALLER)]
    Revoke(revoke::RevokeFlags),
    /// Judge a secret that is read from standard input
    ///
    /// Exit status: 0 the secret is valid, 3 it is not, whatever the verdict, 1 nothing is known
    /// (an error), 2 wrong usage.
    #[command(after_help = CALLER)]
    Verify(verify::VerifyFlags),
}

/// Runs one of them to its end.
pub(super) fn run(command: TokenCommand, environment: &Environment) -> Result<ExitCode, CommandError> {
    single_threaded()?.block_on(async {
        match command {
            TokenCommand::Create(flags) => create::run(flags, environment).await?,
            TokenCommand::Get(flags) => get::run(flags, environment).await?,
            TokenCommand::List(flags) => list::run(flags, environment).await?,
            TokenCommand::Update(flags) => update::run(flags, environment).await?,
            TokenCommand::Revoke(flags) => revoke::run(flags, environment).await?,
            TokenCommand::Verify(flags) => return verify::run(flags, environment).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    written.and_then(|()| output.flush()).map_err(CommandError::Output)
}

/// Writes a remark to standard error, where nothing more can be done if it fails.
fn remark(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
