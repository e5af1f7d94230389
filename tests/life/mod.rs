//! The succession and the end of tokens: rotation, requests that have one result however often they
//! are sent, revocation by possession and of all tokens of a user.

mod disabled_users;
mod last_root;
mod leavers;
mod lost_replies;
mod possession;
mod repeats;
mod reuse;
mod rotation;
mod self_rotation;
mod switched_users;
mod waits;

use prost_types::Duration;
use tokend::api::proto::{GetTokenRequest, Token, Verdict};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::client::{Client, verified};

/// Returns a token, which must exist.
async fn got(client: &mut Client, id: &str) -> Token {
    let request = GetTokenRequest { token_id: id.to_owned() };
    client.get_token(request).await.unwrap().into_inner().token.unwrap()
}

/// Verifies a secret without required scopes.
async fn verdict(client: &mut Client, secret: &str) -> Verdict {
    verified(client, secret, &[]).await.verdict()
}

/// Returns the value of a key in an error's metadata.
fn metadata(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// Returns whole seconds, as messages need them.
#[expect(clippy::unnecessary_wraps, reason = "as the messages want it")]
fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}
