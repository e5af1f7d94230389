//! `tokend watch`: prints changes of tokens as they happen, until it is interrupted or terminated.

use clap::Args;
use serde::Serialize;
use tokend_client::proto::{ChangeKind, TokenChange, WatchTokensRequest, WatchTokensResponse};
use tokio::signal::unix::{SignalKind, signal};
use tonic::Status;

use super::client::{AddressFlag, Client};
use super::output::{print, print_json, quoted, remark, rfc3339};
use super::token_fields::TokenJson;
use super::{CommandError, single_threaded};
use crate::config::Environment;

/// Flags of `tokend watch`.
#[derive(Args)]
pub(super) struct WatchFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Changes of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Continue after the position that an earlier watch printed when it ended
    #[arg(
        allow_hyphen_values = true,
        long,
        value_name = "POSITION",
        default_value = "",
        hide_default_value = true
    )]
    after: String,

    /// Print one JSON object on each line: each change, and after each group of changes that belong together
    /// the position to continue from
    #[arg(long)]
    json: bool,
}

/// A change as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeJson<'a> {
    token_id: &'a str,
    kind: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    organization_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenJson<'a>>,
}

/// The position to resume from, as JSON.
#[derive(Serialize)]
struct PositionJson<'a> {
    position: &'a str,
}

/// Prints changes until a signal or the server ends the watch.
struct Printer {
    organization: bool,
    json: bool,
    /// The position to resume after.
    position: String,
    /// Whether changes were shown since the last printed position.
    unreported: bool,
}

pub(super) fn run(flags: WatchFlags, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(async {
        let (organization, json) = (flags.organization.is_empty(), flags.json);
        let mut printer = Printer { organization, json, position: flags.after.clone(), unreported: false };
        let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
        let watched = tokio::select! {
            watched = watch(flags, environment, &mut printer) => watched,
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        printer.end();
        watched
    })
}

async fn watch(
    flags: WatchFlags,
    environment: &Environment,
    printer: &mut Printer,
) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let message = WatchTokensRequest { organization_id: flags.organization, after: flags.after };
    let failed = |status: Status| client.failed(status.into());
    let mut stream = client.inner().raw().watch_tokens(message).await.map_err(failed)?.into_inner();
    while let Some(message) = stream.message().await.map_err(failed)? {
        printer.batch(message)?;
    }
    Ok(())
}

impl Printer {
    fn batch(&mut self, message: WatchTokensResponse) -> Result<(), CommandError> {
        for change in &message.changes {
            self.unreported = true;
            self.change(change)?;
        }
        if message.position.is_empty() {
            // The batch continues.
            return Ok(());
        }
        self.position = message.position;
        if self.json && self.unreported {
            self.unreported = false;
            return print_json(&[PositionJson { position: &self.position }]);
        }
        Ok(())
    }

    fn change(&self, change: &TokenChange) -> Result<(), CommandError> {
        let name = ChangeKind::try_from(change.kind)
            .map_or_else(|unknown| unknown.0.to_string(), |kind| kind.as_str_name().to_owned());
        if self.json {
            return print_json(&[ChangeJson {
                token_id: &change.token_id,
                kind: name,
                organization_id: &change.organization_id,
                change_time: change.change_time.map(rfc3339),
                token: change.token.as_ref().map(TokenJson::from),
            }]);
        }
        let kind = name.trim_start_matches("CHANGE_KIND_").to_lowercase();
        let (user, name) = change.token.as_ref().map_or(("", ""), |token| (&*token.user_id, &*token.name));
        let time = change.change_time.map_or_else(String::new, rfc3339);
        let shown = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
        // If no organization is named, a root caller sees those of all.
        let organization =
            if self.organization { format!("  {}", shown(&change.organization_id)) } else { String::new() };
        let (user, name) = (shown(user), shown(name));
        print(&format!("{time}  {kind:<12}  {}{organization}  {user}  {name}\n", change.token_id))
    }

    /// Prints the position to resume from: for people on standard error, for programs in the
    /// output, and if that has no reader any more, on standard error as well.
    fn end(&self) {
        if self.position.is_empty() {
            return;
        }
        let printed = self.json && print_json(&[PositionJson { position: &self.position }]).is_ok();
        if !printed {
            remark(&format!("position: {}\n", self.position));
        }
    }
}
