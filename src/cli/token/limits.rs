//! `tokend token limits`: what is left of a token's limits.

use clap::Args;
use tokend_client::Repeatable;
use tokend_client::proto::{GetTokenLimitsRequest, LimitKind, LimitStatus};

use crate::api::message_json::MessageJson;
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{cell, print, print_json, table, to_the_second};
use crate::config::Environment;

/// Flags of `tokend token limits`.
#[derive(Args)]
pub(crate) struct LimitsFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id)]
    token_id: String,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(flags: LimitsFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let message = GetTokenLimitsRequest { token_id: flags.token_id };
    let found = client
        .call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_token_limits(request).await })
        .await?;
    if flags.json {
        return print_json(&[MessageJson::new("GetTokenLimitsResponse", &found, &[])]);
    }
    if found.plan.is_empty() {
        return print("the token names no plan: it has no limits\n");
    }
    print(&table(&["LIMIT", "LEFT", "OF", "RESET"], found.limits.iter().map(row).collect()))
}

fn row(limit: &LimitStatus) -> Vec<String> {
    let most = if limit.kind() == LimitKind::Rate { limit.limit.to_string() } else { "-".to_owned() };
    let reset = limit.reset_time.map_or_else(|| "-".to_owned(), to_the_second);
    vec![cell(&limit.name), limit.remaining.to_string(), most, reset]
}
