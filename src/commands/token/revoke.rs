//! `tokend token revoke`: by id, which is no secret and may stand on a command line, or by a secret that comes by
//! standard input.

use std::io;

use clap::Args;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::super::client::{AddressFlag, Client, ClientError};
use super::super::output::{TokenJson, rfc3339, token_lines, write_json_line};
use super::super::{CommandError, RpcError};
use super::print;
use super::verify::presented;
use crate::config::Environment;
use crate::grpc::proto::RevokeTokenRequest;
use crate::grpc::proto::revoke_token_request::Target;

/// Flags of `tokend token revoke`.
#[derive(Args)]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(required_unless_present = "from_stdin", conflicts_with = "from_stdin")]
    token_id: Option<String>,

    /// Read the token's secret from standard input instead; whoever has it may revoke the token
    #[arg(long)]
    from_stdin: bool,

    /// Leave alive what was rotated from the token
    #[arg(long)]
    only_this: bool,

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
    let target = match flags.token_id {
        Some(id) => Target::TokenId(id),
        None => Target::Secret(presented()?.expose_secret().to_owned()),
    };
    let mut client = Client::open(flags.address, environment).await?;
    let request = client.request(RevokeTokenRequest {
        target: Some(target),
        reason: flags.reason,
        only_this: flags.only_this,
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
