//! `tokend audit list`: lists token events from a running tokend, over gRPC.

use std::num::NonZeroU32;

use clap::Args;
use prost_types::Timestamp;
use tokend_client::Repeatable;
use tokend_client::proto::{FieldChange, ListTokenEventsRequest, OwnerKind, TokenEvent, TokenEventKind};

use crate::api::message_json::{ALWAYS_OF_EVENT, MessageJson};
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{cell, print, print_json, quoted, remark, rfc3339, table};
use crate::cli::owner_kind::KindFlag;
use crate::cli::times::parse_past;
use crate::config::Environment;

/// The most events in one page of the server.
const LARGEST_PAGE: usize = 1000;

/// Flags of `tokend audit list`.
#[derive(Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Events of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Events of this token only
    #[arg(long, value_name = "TOKEN_ID", value_parser = parse_token_id, default_value = "", hide_default_value = true)]
    token: String,

    /// Events of this user's tokens only
    #[arg(long, value_name = "USER_ID", default_value = "", hide_default_value = true)]
    user: String,

    /// Events of persons only, or of service accounts only
    #[arg(long, value_name = "KIND")]
    owner_kind: Option<KindFlag>,

    /// Events at this time or later, RFC 3339 or how long ago, such as 7d
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<Timestamp>,

    /// Events before this time, RFC 3339 or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    until: Option<Timestamp>,

    /// Events of this actor, as in the column BY: a token's id, `cert:NAME`, `bootstrap` or `tokend`
    #[arg(long, value_name = "ACTOR", default_value = "", hide_default_value = true)]
    by: String,

    /// Events of this kind, as in the column EVENT; may be repeated
    #[arg(long, value_name = "KIND", value_parser = parse_kind)]
    event: Vec<TokenEventKind>,

    /// The most events to list; if there are more, a line on standard error says so
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: NonZeroU32,

    /// Print each event as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(flags: ListFlags, environment: &Environment) -> Result<(), CommandError> {
    let (json, organization) = (flags.json, flags.organization.is_empty());
    let (events, more) = list(flags, environment).await?;
    show(&events, organization, json)?;
    if more {
        remark(&format!("there are more than these {}: raise --limit\n", events.len()));
    }
    Ok(())
}

/// Returns the events, and whether there are more.
async fn list(flags: ListFlags, environment: &Environment) -> Result<(Vec<TokenEvent>, bool), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let limit = flags.limit.get() as usize;
    let (mut events, mut page_token): (Vec<TokenEvent>, _) = (Vec::new(), String::new());
    loop {
        // One more tells whether there are more.
        let wanted = limit.saturating_add(1).saturating_sub(events.len()).min(LARGEST_PAGE);
        let page_size = i32::try_from(wanted).unwrap_or(i32::MAX);
        let message = ListTokenEventsRequest {
            organization_id: flags.organization.clone(),
            token_id: flags.token.clone(),
            user_id: flags.user.clone(),
            owner_kind: flags.owner_kind.map_or(OwnerKind::Unspecified, OwnerKind::from).into(),
            page_size,
            page_token,
            occurred_after: flags.since,
            occurred_before: flags.until,
            actor: flags.by.clone(),
            kinds: flags.event.iter().map(|kind| i32::from(*kind)).collect(),
        };
        let call = client.call(Repeatable::Yes, message, |mut raw, request| async move {
            raw.list_token_events(request).await
        });
        let page = call.await?;
        page_token = page.next_page_token;
        events.extend(page.events);
        if page_token.is_empty() || events.len() > limit {
            let more = events.len() > limit;
            events.truncate(limit);
            return Ok((events, more));
        }
    }
}

fn show(events: &[TokenEvent], organization: bool, json: bool) -> Result<(), CommandError> {
    if json {
        let json = events.iter().map(|event| MessageJson::new("TokenEvent", event, &ALWAYS_OF_EVENT));
        return print_json(&json.collect::<Vec<_>>());
    }
    let mut heading = vec!["TIME", "EVENT", "TOKEN", "USER", "BY", "FOR", "CHANGES"];
    if organization {
        // If no organization is named, a root caller sees those of all.
        heading.insert(3, "ORGANIZATION");
    }
    let rows = events.iter().map(|event| {
        let mut row = vec![
            event.event_time.map_or_else(String::new, rfc3339),
            kind_word(event),
            cell(&event.token_id),
            owner(event),
            event.actor.clone(),
            person(event),
            event.changes.iter().map(|change| change_text(event, change)).collect::<Vec<_>>().join("; "),
        ];
        if organization {
            row.insert(3, cell(&event.organization_id));
        }
        row
    });
    print(&table(&heading, rows.collect()))
}

/// Returns the user of an event, and whether it is a service account: `billing (service)`.
fn owner(event: &TokenEvent) -> String {
    let user = cell(&event.user_id);
    if event.owner_kind() == OwnerKind::Service { format!("{user} (service)") } else { user }
}

/// Returns the person behind an event, and how that is known: `ada (proven)`.
fn person(event: &TokenEvent) -> String {
    let known = event.attribution().as_str_name().trim_start_matches("ATTRIBUTION_").to_lowercase();
    match &*event.acting_user {
        "" => String::new(),
        user => format!("{} ({known})", cell(user)),
    }
}

/// Parses a kind as [`kind_word`] prints it.
fn parse_kind(text: &str) -> Result<TokenEventKind, String> {
    let name = format!("TOKEN_EVENT_KIND_{}", text.to_uppercase().replace('-', "_"));
    TokenEventKind::from_str_name(&name).filter(|kind| *kind != TokenEventKind::Unspecified).ok_or_else(
        || {
            "must be created, updated, rotated, revoked, disabled, enabled, expires_soon, purged, \
              user_disabled or user_enabled"
                .to_owned()
        },
    )
}

/// Returns a kind's enum name, or the number of an unknown one.
fn kind_name(event: &TokenEvent) -> String {
    TokenEventKind::try_from(event.kind)
        .map_or_else(|unknown| unknown.0.to_string(), |kind| kind.as_str_name().to_owned())
}

/// Returns a kind for people: `created`.
fn kind_word(event: &TokenEvent) -> String {
    kind_name(event).trim_start_matches("TOKEN_EVENT_KIND_").to_lowercase()
}

fn change_text(event: &TokenEvent, change: &FieldChange) -> String {
    if event.kind() == TokenEventKind::ExpiresSoon {
        return format!("{} {}", cell(&change.field), cell(&change.new_value));
    }
    let shown = |value: &str| if value.is_empty() { "none".to_owned() } else { quoted(value) };
    format!("{}: {} -> {}", change.field, shown(&change.old_value), shown(&change.new_value))
}
