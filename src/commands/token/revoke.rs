//! `tokend token revoke`: by id, which is no secret and may stand on a command line.

use std::io;

use clap::Args;
use serde::Serialize;

use super::super::client::{AddressFlag, Client, ClientError};
use super::super::output::{TokenJson, rfc3339, token_lines, write_json_line};
use super::super::{CommandError, RpcError};
use super::print;
use crate::config::Environment;
use crate::grpc::proto::RevokeTokenRequest;
use crate::grpc::proto::revoke_token_request::Target;

/// Flags of `tokend token revoke`.
#[derive(Args)]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    token_id: String,

    /// Why, for people who read the list; at most 500 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    /// Print the whole answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// The answer as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedJson<'a> {
    token: TokenJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_time: Option<String>,
}

pub(super) async fn run(flags: RevokeFlags, environment: &Environment) -> Result<(), CommandError> {
    let mut client = Client::open(flags.address, environment).await?;
    let request = client.request(RevokeTokenRequest {
        target: Some(Target::TokenId(flags.token_id)),
        reason: flags.reason,
        only_this: false,
    });
    let answer = client.service().revoke_token(request).await;
    let answer = answer.map_err(RpcError::from)?.into_inner();
    let token = answer.token.ok_or(ClientError::Incomplete("token"))?;
    if flags.json {
        let revoked = RevokedJson {
            token: TokenJson::from(&token),
            effective_time: answer.effective_time.map(rfc3339),
        };
        return write_json_line(&mut io::stdout().lock(), &revoked).map_err(CommandError::Output);
    }
    let mut text = token_lines(&token);
    if let Some(time) = answer.effective_time {
        text.push_str("refused everywhere from ");
        text.push_str(&rfc3339(time));
        text.push('\n');
    }
    print(&text)
}
