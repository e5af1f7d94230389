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
use crate::support::database::Database;
use crate::support::eventually;

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

/// Waits until a server process waits for a lock of this kind, in a statement with this prefix.
async fn a_statement_waits(database: &Database, kind: &str, prefix: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND wait_event_type = 'Lock' AND wait_event = '{kind}' AND query LIKE '{prefix}%'"
    );
    eventually("a statement waits", async || (database.count(&*waiting).await > 0).then_some(())).await;
}

/// Copies the one token that the condition selects, so that there are more of the same owner.
async fn copy_token(database: &Database, copies: u32, condition: &str) {
    let script = format!(
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
            expire_time, durable_hash, mac, mac_key_id)
        SELECT gen_random_uuid(), organization_id, user_id, name, scopes, labels,
            create_time - copy * interval '1 ms', created_by, expire_time, durable_hash, mac, mac_key_id
        FROM tokens, generate_series(1, {copies}) AS copy WHERE {condition}"
    );
    database.fill(&script).await;
}
