//! `tokend plan add-credits`: credits for one balance, once.

use clap::Args;
use serde::Serialize;
use tokend_client::proto::{AddCreditsRequest, OwnerKind};

use super::Target;
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, quoted};
use crate::cli::request_id::new_request_id;
use crate::config::Environment;

/// Flags of `tokend plan add-credits`.
#[derive(Args)]
pub(crate) struct AddCreditsFlags {
    #[command(flatten)]
    target: Target,

    /// A limit of credits of the plan
    #[arg(long, value_name = "LIMIT")]
    limit: String,

    /// How many credits to add
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    amount: i64,

    /// The token, or any that it was rotated from or into, for a limit that counts per token
    #[arg(long, value_name = "TOKEN_ID", value_parser = parse_token_id, conflicts_with = "user")]
    token: Option<String>,

    /// The user, for a limit that counts per user
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,

    /// The user is a service account, not a person
    #[arg(long, requires = "user")]
    service: bool,

    /// UUID of an earlier attempt: adds nothing if that attempt did [default: a new one]
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
}

/// The response as JSON; a 64-bit number is a string there.
#[derive(Serialize)]
struct AddedJson {
    balance: String,
}

pub(super) async fn run(flags: AddCreditsFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.target.address, environment).await?;
    let request_id = flags.request_id.map_or_else(new_request_id, Ok)?;
    let kind = match (&flags.user, flags.service) {
        (None, _) => OwnerKind::Unspecified,
        (Some(_), true) => OwnerKind::Service,
        (Some(_), false) => OwnerKind::User,
    };
    let message = AddCreditsRequest {
        organization_id: flags.target.organization,
        plan: flags.target.plan,
        limit: flags.limit.clone(),
        token_id: flags.token.unwrap_or_default(),
        user_id: flags.user.unwrap_or_default(),
        owner_kind: kind.into(),
        amount: flags.amount,
        request_id: request_id.clone(),
    };
    let answer =
        client.make(&request_id, message, |mut raw, request| async move { raw.add_credits(request).await });
    let balance = answer.await?.balance;
    if flags.target.json {
        return print_json(&[AddedJson { balance: balance.to_string() }]);
    }
    print(&format!("added {} to {}: the balance is {balance}\n", flags.amount, quoted(&flags.limit)))
}
