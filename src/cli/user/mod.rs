//! `tokend user …`: the operator's commands on users and all of their tokens.

use clap::{Args, Subcommand};
use tokend_client::proto::OwnerKind;

use super::token::{CALLER_HELP, preview};
use super::{CommandError, single_threaded};
use crate::cli::client::AddressFlag;
use crate::config::Environment;

mod disable;
mod list;
mod portal;
mod revoke;

/// `tokend user …`
#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Revoke all tokens of a user permanently
    ///
    /// In one organization, for a user who leaves. Disable the user first: a token that is created later stays
    /// active.
    #[command(after_help = CALLER_HELP)]
    Revoke(revoke::RevokeFlags),

    /// Disable a user: refuse all their tokens, and the creation of new ones
    ///
    /// In one organization, until `tokend user enable`. The user need not have tokens.
    #[command(after_help = CALLER_HELP)]
    Disable(disable::DisableFlags),

    /// Take back what `tokend user disable` did, and nothing else
    ///
    /// Tokens that were revoked, have expired or were disabled by themselves stay refused.
    #[command(after_help = CALLER_HELP)]
    Enable(disable::EnableFlags),

    /// List who has tokens, how many, and who is disabled
    #[command(after_help = CALLER_HELP)]
    List(list::ListFlags),

    /// Print a link that opens the console for a user, to manage their own tokens
    ///
    /// It opens once and within a minute. The user issues tokens only with the scopes that are named here, and only what the caller's
    /// own token may issue. Needs a caller with tokend:write.
    #[command(after_help = CALLER_HELP)]
    Portal(portal::PortalFlags),

    /// End all portal sessions of a user, and their unused links
    ///
    /// Tokens that were created in them stay.
    #[command(after_help = CALLER_HELP)]
    RevokePortal(portal::RevokePortalFlags),
}

/// The user that a command is about.
#[derive(Args)]
pub(crate) struct UserFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// The user
    user_id: String,

    /// Organization of the user [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// The id names a service account, not a person
    #[arg(long)]
    service: bool,
}

impl UserFlags {
    fn kind(&self) -> OwnerKind {
        if self.service { OwnerKind::Service } else { OwnerKind::User }
    }
}

/// Runs a user command to its end.
pub(super) fn run(command: UserCommand, environment: &Environment) -> Result<(), CommandError> {
    let runtime = single_threaded()?;
    match command {
        UserCommand::Revoke(flags) => runtime.block_on(revoke::run(flags, environment)),
        UserCommand::Disable(flags) => runtime.block_on(disable::disable(flags, environment)),
        UserCommand::Enable(flags) => runtime.block_on(disable::enable(flags, environment)),
        UserCommand::List(flags) => runtime.block_on(list::run(flags, environment)),
        UserCommand::Portal(flags) => runtime.block_on(portal::create(flags, environment)),
        UserCommand::RevokePortal(flags) => runtime.block_on(portal::revoke(flags, environment)),
    }
}
