//! `tokend token get`: one token by its id.

use std::io;

use clap::Args;

use super::super::client::{AddressFlag, Client, ClientError};
use super::super::output::{TokenJson, token_lines, write_json_line};
use super::super::{CommandError, RpcError};
use super::print;
use crate::config::Environment;
use crate::grpc::proto::{GetTokenRequest, Token};

/// Flags of `tokend token get`.
#[derive(Args)]
pub(crate) struct GetFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    token_id: String,

    /// Print the token as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(flags: GetFlags, environment: &Environment) -> Result<(), CommandError> {
    let mut client = Client::open(flags.address, environment).await?;
    let request = client.request(GetTokenRequest { token_id: flags.token_id });
    let answer = client.service().get_token(request).await;
    let token = answer.map_err(RpcError::from)?.into_inner().token;
    show(&token.ok_or(ClientError::Incomplete("token"))?, flags.json)
}

/// Prints a token, as JSON or for people.
pub(super) fn show(token: &Token, json: bool) -> Result<(), CommandError> {
    if json {
        let json = TokenJson::from(token);
        return write_json_line(&mut io::stdout().lock(), &json).map_err(CommandError::Output);
    }
    print(&token_lines(token))
}
