//! `tokend watch`: prints which tokens change, as it happens, until it is interrupted.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tokend_client::proto::{TokenChange, WatchTokensRequest};
use tonic::Status;

use super::client::{AddressFlag, Client};
use super::output::{TokenJson, quoted, rfc3339, write_json_line};
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

    /// Go on behind the position that an earlier watch printed when it ended
    #[arg(long, value_name = "POSITION", default_value = "", hide_default_value = true)]
    after: String,

    /// Print one JSON object a line, each a change
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeJson<'a> {
    token_id: &'a str,
    kind: String,
    organization_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenJson<'a>>,
}

pub(super) fn run(flags: WatchFlags, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(async {
        let mut position = flags.after.clone();
        let watched = tokio::select! {
            watched = watch(flags, environment, &mut position) => watched,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if !position.is_empty() {
            let _ = io::stderr().lock().write_all(format!("position: {position}\n").as_bytes());
        }
        watched
    })
}

async fn watch(
    flags: WatchFlags,
    environment: &Environment,
    position: &mut String,
) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment)?;
    let message = WatchTokensRequest { organization_id: flags.organization, after: flags.after };
    let failed = |status: Status| client.failed(status.into());
    let mut stream = client.inner().raw().watch_tokens(message).await.map_err(failed)?.into_inner();
    while let Some(message) = stream.message().await.map_err(failed)? {
        for change in &message.changes {
            print(change, flags.json).map_err(CommandError::Output)?;
        }
        if !message.position.is_empty() {
            *position = message.position;
        }
    }
    Ok(())
}

fn print(change: &TokenChange, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let kind = change.kind().as_str_name().trim_start_matches("CHANGE_KIND_").to_lowercase();
    if json {
        let change = ChangeJson {
            token_id: &change.token_id,
            kind,
            organization_id: &change.organization_id,
            change_time: change.change_time.map(rfc3339),
            token: change.token.as_ref().map(TokenJson::from),
        };
        return write_json_line(&mut output, &change);
    }
    let (user, name) = change.token.as_ref().map_or(("", ""), |token| (&*token.user_id, &*token.name));
    let time = change.change_time.map_or_else(String::new, rfc3339);
    let shown = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
    let (user, name) = (shown(user), shown(name));
    writeln!(output, "{time}  {kind:<12}  {}  {user}  {name}", change.token_id)?;
    output.flush()
}
