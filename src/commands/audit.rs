//! `tokend audit …`: shows the audit log, checks its seals, deletes what is old. Showing goes over gRPC; the
//! other two need the database, and checking the keyring, as they must not depend on a server to be honest.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use serde::Serialize;
use time::OffsetDateTime;
use tokend_client::Repeatable;
use tokend_client::proto::{FieldChange, ListTokenEventsRequest, TokenEvent};

use super::client::{AddressFlag, Client};
use super::error::described;
use super::output::{cell, quoted, rfc3339, table, write_json_line};
use super::{CommandError, single_threaded};
use crate::config::{Environment, KeyStatusFlags};
use crate::store::{CheckedSeal, Finding, SealWalk, Store};
use crate::{ambient, store, telemetry};

/// The most events in one page of the server.
const LARGEST_PAGE: usize = 1000;

/// `tokend audit …`
#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List what happened to tokens, newest first
    List(ListFlags),
    /// Check every seal of the audit log against its events
    ///
    /// Needs the database and the keyring. Prints each seal that does not fit. Exit status 1 when an event was
    /// altered, removed or put in, or a seal was.
    Verify {
        #[command(flatten)]
        flags: Box<KeyStatusFlags>,
    },
    /// Delete events that are older than a number of days, in whole sealed batches
    ///
    /// Needs the database, as a role that may execute the function `purge_audit`, and the keyring: each seal is
    /// checked first, and marked as purged. Deletes nothing behind one that does not fit. The seals stay.
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

/// Flags of `tokend audit list`.
#[derive(Args)]
pub(super) struct ListFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Events of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Events of this token only
    #[arg(long, value_name = "TOKEN_ID", default_value = "", hide_default_value = true)]
    token: String,

    /// Events of this user's tokens only
    #[arg(long, value_name = "USER_ID", default_value = "", hide_default_value = true)]
    user: String,

    /// The most events to list
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: NonZeroU32,

    /// Print one JSON object a line, each an event
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    event_id: i64,
    event_time: String,
    kind: String,
    token_id: &'a str,
    organization_id: &'a str,
    user_id: &'a str,
    actor: &'a str,
    acting_user: &'a str,
    trace_id: &'a str,
    changes: Vec<ChangeJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeJson<'a> {
    field: &'a str,
    old_value: &'a str,
    new_value: &'a str,
}

pub(super) fn run(command: AuditCommand, environment: &Environment) -> Result<(), CommandError> {
    let runtime = single_threaded()?;
    match command {
        AuditCommand::List(flags) => {
            let json = flags.json;
            let events = runtime.block_on(list(flags, environment))?;
            print(&events, json).map_err(CommandError::Output)
        }
        AuditCommand::Verify { flags } => runtime.block_on(verify(*flags, environment)),
        AuditCommand::Purge { flags, dry_run, older_than_days } => {
            let extent = if dry_run { Extent::Told } else { Extent::Deleted };
            runtime.block_on(purge(*flags, older_than_days, extent, environment))
        }
    }
}

async fn list(flags: ListFlags, environment: &Environment) -> Result<Vec<TokenEvent>, CommandError> {
    let client = Client::open(flags.address, environment)?;
    let limit = flags.limit.get() as usize;
    let (mut events, mut page_token): (Vec<TokenEvent>, _) = (Vec::new(), String::new());
    loop {
        let page_size = i32::try_from((limit - events.len()).min(LARGEST_PAGE)).unwrap_or(i32::MAX);
        let message = ListTokenEventsRequest {
            organization_id: flags.organization.clone(),
            token_id: flags.token.clone(),
            user_id: flags.user.clone(),
            page_size,
            page_token,
        };
        let asked = client.call(Repeatable::Yes, message, |mut raw, request| async move {
            raw.list_token_events(request).await
        });
        let page = asked.await?;
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() || events.len() >= limit {
            return Ok(events);
        }
    }
}

fn print(events: &[TokenEvent], json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if json {
        return events.iter().try_for_each(|event| write_json_line(&mut output, &event_json(event)));
    }
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            [
                event.event_time.map_or_else(String::new, rfc3339),
                kind_word(event),
                event.token_id.clone(),
                cell(&event.user_id),
                event.actor.clone(),
                cell(&event.acting_user),
                event.changes.iter().map(change_text).collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    let heading = ["TIME", "EVENT", "TOKEN", "USER", "BY", "FOR", "CHANGES"];
    output.write_all(table(heading, &rows).as_bytes())
}

fn event_json(event: &TokenEvent) -> EventJson<'_> {
    EventJson {
        event_id: event.event_id,
        event_time: event.event_time.map_or_else(String::new, rfc3339),
        kind: kind_word(event),
        token_id: &event.token_id,
        organization_id: &event.organization_id,
        user_id: &event.user_id,
        actor: &event.actor,
        acting_user: &event.acting_user,
        trace_id: &event.trace_id,
        changes: event
            .changes
            .iter()
            .map(|change| ChangeJson {
                field: &change.field,
                old_value: &change.old_value,
                new_value: &change.new_value,
            })
            .collect(),
    }
}

fn kind_word(event: &TokenEvent) -> String {
    event.kind().as_str_name().trim_start_matches("TOKEN_EVENT_KIND_").to_lowercase()
}

fn change_text(change: &FieldChange) -> String {
    let told = |value: &str| if value.is_empty() { "none".to_owned() } else { quoted(value) };
    format!("{}: {} -> {}", change.field, told(&change.old_value), told(&change.new_value))
}

async fn verify(flags: KeyStatusFlags, environment: &Environment) -> Result<(), CommandError> {
    let settings = flags.resolve(environment)?;
    telemetry::init(&settings.log, None)?;
    let store = open(&settings.database).await?;
    let (mut walk, mut genuine, mut purged, mut fault) = (SealWalk::default(), 0_u64, 0_u64, None);
    while let Some(seal) = store.check_seal(&mut walk, &settings.keyring).await? {
        match seal.finding {
            Finding::Genuine => genuine += 1,
            Finding::Purged => purged += 1,
            finding => {
                say(&format!("{}\n", SealFault { seal: &seal }))?;
                fault.get_or_insert((seal.sealed.header.sequence, finding));
            }
        }
    }
    let unsealed = store.count_unsealed(&walk).await?;
    store.close().await;
    say(&format!(
        "{genuine} seals are over the events that are there, {purged} over events that were purged; \
         {unsealed} events are not sealed yet\n"
    ))?;
    fault.map_or(Ok(()), |(sequence, finding)| Err(CommandError::AuditLog { sequence, finding }))
}

/// A seal that does not fit, for a line of its own: several may have the same number.
struct SealFault<'a> {
    seal: &'a CheckedSeal,
}

impl fmt::Display for SealFault<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "seal {} (", self.seal.sealed.header.sequence)?;
        for byte in self.seal.sealed.seal {
            write!(formatter, "{byte:02x}")?;
        }
        write!(formatter, "): {}", described(self.seal.finding))
    }
}

fn say(text: &str) -> Result<(), CommandError> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(CommandError::Output)
}

/// What becomes of old events.
#[derive(Clone, Copy)]
enum Extent {
    Told,
    Deleted,
}

async fn purge(
    flags: KeyStatusFlags,
    days: u16,
    extent: Extent,
    environment: &Environment,
) -> Result<(), CommandError> {
    let settings = flags.resolve(environment)?;
    telemetry::init(&settings.log, None)?;
    let store = open(&settings.database).await?;
    let before: OffsetDateTime = ambient::now() - time::Duration::days(i64::from(days));
    let (mut walk, mut purged) = (SealWalk::default(), 0);
    while let Some(seal) = store.check_seal(&mut walk, &settings.keyring).await? {
        match (seal.finding, seal.newest_event) {
            (Finding::Purged, _) => {}
            (Finding::Genuine, newest) if newest.is_some_and(|newest| newest < before) => {
                purged += match extent {
                    Extent::Told => seal.sealed.header.events,
                    Extent::Deleted => store.purge_events(&seal.sealed, &settings.keyring).await?,
                };
            }
            (Finding::Genuine, _) => break,
            (finding, _) => {
                return Err(CommandError::AuditLog { sequence: seal.sealed.header.sequence, finding });
            }
        }
    }
    store.close().await;
    say(&match extent {
        Extent::Told => format!("{purged} events would be deleted\n"),
        Extent::Deleted => format!("{purged} events deleted\n"),
    })
}

async fn open(database: &crate::config::DatabaseSettings) -> Result<Store, CommandError> {
    store::check(&database.route, &database.prefix).await?;
    let store = Store::new(database.route.clone(), 1);
    store.open();
    Ok(store)
}
