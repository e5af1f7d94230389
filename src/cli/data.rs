//! `tokend data …`: maintains the data directory of a private Postgres while it is not served.

use std::io::{self, Write as _};

use clap::Subcommand;

use super::CommandError;
use crate::config::{DataFlags, Environment};
use crate::{private_postgres, telemetry};

/// `tokend data …`
#[derive(Subcommand)]
pub(super) enum DataCommand {
    /// Upgrade the data to the newest Postgres of this machine
    ///
    /// Needs both the Postgres that wrote the data and the newer one, and disk space for a copy. Stop
    /// `tokend serve` first. The old data is kept next to the new data until `tokend data delete-old`. If the
    /// upgrade is interrupted, run it again.
    Upgrade(DataFlags),
    /// Delete the old data that an upgrade kept
    DeleteOld {
        #[command(flatten)]
        flags: DataFlags,
        /// Delete nothing: print what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(command: DataCommand, environment: &Environment) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = match command {
        DataCommand::Upgrade(flags) => {
            let settings = flags.resolve(environment)?;
            telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
            let done = private_postgres::upgrade(&settings.data_dir)?;
            writeln!(
                output,
                "The data now belongs to Postgres {}. The data of Postgres {} is kept in {}; when everything \
                 works, delete it with `tokend data delete-old`.",
                done.to,
                done.from,
                done.old_data.display()
            )
        }
        DataCommand::DeleteOld { flags, dry_run } => {
            let settings = flags.resolve(environment)?;
            telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
            if dry_run {
                let old_data = private_postgres::old_data(&settings.data_dir)?;
                let mut lines = old_data.iter();
                return lines
                    .try_for_each(|directory| writeln!(output, "would delete {}", directory.display()))
                    .map_err(CommandError::Output);
            }
            let deleted = private_postgres::delete_old_data(&settings.data_dir)?;
            deleted.iter().try_for_each(|directory| writeln!(output, "deleted {}", directory.display()))
        }
    };
    written.map_err(CommandError::Output)
}
