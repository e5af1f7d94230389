//! `tokend token get`: one token by its id.

use clap::Args;
use tokend_client::Repeatable;
use tokend_client::proto::{GetTokenRequest, Token};

use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client, ClientError};
use crate::cli::output::{print, print_json};
use crate::cli::token_fields::{TokenJson, token_lines};
use crate::config::Environment;

/// Flags of `tokend token get`.
#[derive(Args)]
pub(crate) struct GetFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id)]
    token_id: String,

    /// Print the token as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(flags: GetFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let message = GetTokenRequest { token_id: flags.token_id };
    let answer =
        client.call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_token(request).await });
    show(&answer.await?.token.ok_or(ClientError::Incomplete("token"))?, flags.json)
}

/// Prints a token, as JSON or for people.
pub(super) fn show(token: &Token, json: bool) -> Result<(), CommandError> {
    if json {
        let json = TokenJson::from(token);
        return print_json(&[json]);
    }
    print(&token_lines(token))
}
