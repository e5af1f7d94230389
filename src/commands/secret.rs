//! `tokend secret check`: whether a text is a secret at all, and which token it names. Asks nobody, so that it can
//! be used where no tokend is reachable; whether the token is valid is for `tokend token verify`.

use std::process::ExitCode;

use clap::Subcommand;
use secrecy::ExposeSecret;

use super::CommandError;
use super::token::{NOT_VALID, presented, print, remark};
use crate::config::{Environment, PrefixFlags};
use crate::secret::Secret;

/// `tokend secret …`
#[derive(Subcommand)]
pub(super) enum SecretCommand {
    /// Tell whether the text on standard input has the form of a secret, and the id of its token
    ///
    /// Prints the id alone. Exit status 0: it has, 3: it has not, with the reason on standard
    /// error. Asks no server: a typing error or a scanner's false hit is told by the checksum.
    Check {
        #[command(flatten)]
        prefix: PrefixFlags,
    },
}

pub(super) fn run(command: SecretCommand, environment: &Environment) -> Result<ExitCode, CommandError> {
    let SecretCommand::Check { prefix } = command;
    let prefix = prefix.resolve(environment)?;
    match Secret::parse(presented()?.expose_secret(), &prefix) {
        Ok(secret) => {
            print(&format!("{}\n", secret.id()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            remark(&format!("not a secret: {error}\n"));
            Ok(ExitCode::from(NOT_VALID))
        }
    }
}
