//! `tokend console …`: a link that signs in to the console. It is printed and stored nowhere.

use clap::{Args, Subcommand};
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{CreateConsoleLinkRequest, CreateConsoleLinkResponse};

use super::client::{AddressFlag, Client};
use super::output::{print, print_json, remark, rfc3339};
use super::token::CALLER_HELP;
use super::{CommandError, single_threaded};
use crate::config::Environment;

/// `tokend console …`
#[derive(Subcommand)]
pub(super) enum ConsoleCommand {
    /// Print a link that signs in to the console, once and within a minute
    ///
    /// The session can do what the caller's own token can do, and ends with it. Needs a caller with tokend:read,
    /// tokend:write or tokend:self. The link is as confidential as the secret while it lasts.
    #[command(after_help = CALLER_HELP)]
    Link(LinkFlags),
}

/// Flags of `tokend console link`.
#[derive(Args)]
pub(crate) struct LinkFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
}

/// Runs a console command to its end.
pub(super) fn run(command: ConsoleCommand, environment: &Environment) -> Result<(), CommandError> {
    let ConsoleCommand::Link(flags) = command;
    single_threaded()?.block_on(link(flags, environment))
}

async fn link(flags: LinkFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    // A repeat makes another link, and the first one expires unused.
    let answer = client.call(Repeatable::Yes, CreateConsoleLinkRequest {}, |mut raw, request| async move {
        raw.create_console_link(request).await
    });
    let CreateConsoleLinkResponse { url, expire_time } = answer.await?;
    if flags.json {
        return print_json(&[LinkJson { url: &url, expire_time: expire_time.map(rfc3339) }]);
    }
    print(&format!("{url}\n"))?;
    remark("it signs in once, within a minute; show it to nobody else\n");
    Ok(())
}
