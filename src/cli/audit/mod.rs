//! `tokend audit …`: shows the audit log, checks its seals, deletes old events. Showing uses gRPC; the
//! other two need the database and the keyring, since they must not depend on a server's honesty.

mod list;

use std::fmt;

use clap::Subcommand;
use time::OffsetDateTime;

use super::database::Database;
use super::error::described;
use super::output::print_if_read;
use super::{CommandError, database, single_threaded};
use crate::config::{Environment, KeyStatusFlags};
use crate::secret::Keyring;
use crate::store::{CheckedSeal, Finding, SealWalk, Store};
use crate::{clock, store, telemetry};

/// `tokend audit …`
#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List what happened to tokens, newest first
    List(Box<list::ListFlags>),
    /// Check every seal of the audit log against its events
    ///
    /// Needs the database and the keyring. Prints each seal that does not match. Exit status 1 if an event or
    /// a seal was altered, removed or inserted.
    Verify {
        #[command(flatten)]
        flags: Box<KeyStatusFlags>,
    },
    /// Delete events that are older than a number of days, in whole sealed batches
    ///
    /// Needs the database, as a role that may execute the function `purge_audit`, and the keyring: each seal
    /// is checked first, and marked as purged. Deletes nothing after a seal that does not match. The seals
    /// stay.
    Purge {
        #[command(flatten)]
        flags: Box<KeyStatusFlags>,
        /// Delete nothing: print how many events would be deleted
        #[arg(long)]
        dry_run: bool,
        /// How many days events are kept; at least 30
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(30..))]
        older_than_days: u16,
    },
}

pub(super) fn run(command: AuditCommand, environment: &Environment) -> Result<(), CommandError> {
    let runtime = single_threaded()?;
    match command {
        AuditCommand::List(flags) => runtime.block_on(list::run(*flags, environment)),
        AuditCommand::Verify { flags } => {
            let (database, keyring) = reach(*flags, environment)?;
            runtime.block_on(verify(&database, &keyring))
        }
        AuditCommand::Purge { flags, dry_run, older_than_days } => {
            let mode = if dry_run { PurgeMode::DryRun } else { PurgeMode::Delete };
            let (database, keyring) = reach(*flags, environment)?;
            runtime.block_on(purge(&database, &keyring, older_than_days, mode))
        }
    }
}

fn reach(flags: KeyStatusFlags, environment: &Environment) -> Result<(Database, Keyring), CommandError> {
    let settings = flags.resolve(environment)?;
    telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
    Ok((database::reach(settings.database)?, settings.keyring))
}

async fn verify(database: &Database, keyring: &Keyring) -> Result<(), CommandError> {
    let store = open(database).await?;
    let (mut walk, mut genuine, mut purged, mut fault) = (SealWalk::default(), 0_u64, 0_u64, None);
    while let Some(seal) = store.check_seal(&mut walk, keyring).await? {
        match seal.finding {
            Finding::Genuine => genuine += 1,
            Finding::Purged => purged += 1,
            finding => {
                print_if_read(&format!("{}\n", SealFault { seal: &seal }))?;
                fault.get_or_insert((seal.sealed.header.sequence, finding));
            }
        }
    }
    let unsealed = store.count_unsealed(&walk).await?;
    store.close().await;
    print_if_read(&format!(
        "{genuine} seals match their events, {purged} seals are for purged events; {unsealed} events are not \
         sealed yet\n"
    ))?;
    fault.map_or(Ok(()), |(sequence, finding)| Err(CommandError::AuditLog { sequence, finding }))
}

/// Displays a seal that does not match: several may have the same number.
struct SealFault<'a> {
    seal: &'a CheckedSeal,
}

impl fmt::Display for SealFault<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckedSeal { sealed, finding, .. } = self.seal;
        let seal = hex::encode(sealed.seal);
        write!(formatter, "seal {} ({seal}): {}", sealed.header.sequence, described(*finding))
    }
}

/// What happens to old events.
#[derive(Clone, Copy)]
enum PurgeMode {
    DryRun,
    Delete,
}

async fn purge(
    database: &Database,
    keyring: &Keyring,
    days: u16,
    mode: PurgeMode,
) -> Result<(), CommandError> {
    let store = open(database).await?;
    let before: OffsetDateTime = clock::now() - time::Duration::days(i64::from(days));
    let (mut walk, mut purged) = (SealWalk::default(), 0);
    while let Some(seal) = store.check_seal(&mut walk, keyring).await? {
        match (seal.finding, seal.newest_event) {
            (Finding::Purged, _) => {}
            (Finding::Genuine, newest) if newest.is_some_and(|newest| newest < before) => {
                purged += match mode {
                    PurgeMode::DryRun => seal.sealed.header.events,
                    PurgeMode::Delete => store.purge_events(&seal.sealed, keyring).await?,
                };
            }
            (Finding::Genuine, _) => break,
            (finding, _) => {
                return Err(CommandError::AuditLog { sequence: seal.sealed.header.sequence, finding });
            }
        }
    }
    store.close().await;
    print_if_read(&match mode {
        PurgeMode::DryRun => format!("{purged} events would be deleted\n"),
        PurgeMode::Delete => format!("{purged} events deleted\n"),
    })
}

async fn open(database: &Database) -> Result<Store, CommandError> {
    store::check(&database.settings, &database.prefix).await?;
    let store = Store::new(database.settings.clone(), 1);
    store.open();
    Ok(store)
}
