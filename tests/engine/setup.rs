//! Shared helpers of the engine's tests: tokens that are known to be in a replica's cache, changes
//! as an operator makes them, and waiting for a verdict.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use tokend::api::proto::{CreateTokenResponse, Verdict, VerifyResponse};
use tonic::{Code, Status};

use crate::support::client::{Client, created, nanos, ordinary, question, verified};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Replica;

/// A token and its secret.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl From<CreateTokenResponse> for Made {
    fn from(response: CreateTokenResponse) -> Self {
        Self { id: response.token.unwrap().id, secret: response.secret }
    }
}

/// Creates an ordinary token that never expires.
pub(crate) async fn made(client: &mut Client) -> Made {
    created(client, ordinary()).await.into()
}

/// Creates a token that is in the replica's cache.
pub(crate) async fn cached(client: &mut Client) -> Made {
    let made = made(client).await;
    in_cache(client, &made).await;
    made
}

/// Waits until a VALID comes from the cache: then two responses have the `as_of_time` of the same
/// poll, whereas each read from the database has its own.
pub(crate) async fn in_cache(client: &mut Client, token: &Made) {
    eventually("the record is in the cache", async || {
        let mut ask = async || {
            let answer = client.verify(question(&token.secret, &[])).await.ok()?.into_inner();
            assert_eq!(answer.verdict(), Verdict::Valid);
            answer.as_of_time
        };
        (ask().await? == ask().await?).then_some(())
    })
    .await;
}

/// Waits until the token gets this verdict. Until then it must be VALID or UNAVAILABLE. Shows that the cache follows a
/// change only if the token is [`settled`]: a record that has left the cache is read from the database.
pub(crate) async fn becomes(client: &mut Client, token: &Made, verdict: Verdict) -> VerifyResponse {
    eventually("the change is seen", async || {
        let answer = match client.verify(question(&token.secret, &[])).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                assert_unavailable(&status);
                return None;
            }
        };
        if answer.verdict() == verdict {
            return Some(answer);
        }
        assert_eq!(answer.verdict(), Verdict::Valid);
        None
    })
    .await
}

/// Checks that the token is VALID.
pub(crate) async fn is_valid(client: &mut Client, token: &Made) {
    assert_eq!(verified(client, &token.secret, &[]).await.verdict(), Verdict::Valid);
}

/// Waits until the replica's cache covers everything that was committed before this call.
pub(crate) async fn caught_up(client: &mut Client, database: &Database, token: &Made) {
    caught_up_with(client, database.count(NOW).await, token).await;
}

/// Waits until the replica's cache covers everything that was committed before this time of the database,
/// in microseconds.
pub(crate) async fn caught_up_with(client: &mut Client, time: i64, token: &Made) {
    let committed = i128::from(time) * 1_000;
    eventually("the feed has passed this moment", async || {
        let answer = client.verify(question(&token.secret, &[])).await.ok()?.into_inner();
        let again = client.verify(question(&token.secret, &[])).await.ok()?.into_inner();
        let as_of = again.as_of_time;
        (answer.as_of_time == as_of && nanos(as_of.as_ref()) > committed).then_some(())
    })
    .await;
}

/// Creates a token whose record stays in the replica's cache until it changes. A record that is only
/// [`cached`] is forgotten when the feed reads of the token's creation, and is then read from the database.
pub(crate) async fn settled(replica: &Replica) -> Made {
    let token = made(&mut replica.root()).await;
    settles(replica, &token).await;
    token
}

/// Waits until a token's record stays in the replica's cache until it changes.
pub(crate) async fn settles(replica: &Replica, token: &Made) {
    settles_in(&mut replica.root(), &replica.installation.database, &root_token(replica), token).await;
}

/// Waits until a token's record stays in a cache until it changes; `other` is a token that does not change.
pub(crate) async fn settles_in(client: &mut Client, database: &Database, other: &Made, token: &Made) {
    let time = database.count(NOW).await;
    database.execute(WAKE).await;
    caught_up_with(client, time, other).await;
    in_cache(client, token).await;
}

/// Checks that a change, which is committed, has reached the replica's cache: the token gets this verdict
/// as soon as the feed has passed this moment. The token is not verified before that. A cache that is
/// too old would have it read from the database, although the feed has missed the change.
pub(crate) async fn reaches_the_cache(replica: &Replica, token: &Made, verdict: Verdict) {
    let mut root = replica.root();
    caught_up(&mut root, &replica.installation.database, &root_token(replica)).await;
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), verdict);
}

/// Returns the root token of a replica; its id is not needed.
fn root_token(replica: &Replica) -> Made {
    Made { id: String::new(), secret: replica.installation.root_secret.clone() }
}

/// Has the feeds of all replicas poll now.
pub(crate) const WAKE: &str = "NOTIFY tokend_changes";

/// The database's time in microseconds.
pub(crate) const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Executes statements in one message on a connection that stays open.
pub(crate) async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// The statement with which an operator revokes a token in psql.
pub(crate) fn revoking(token: &Made) -> String {
    format!("UPDATE tokens SET revoke_time = now(), revoke_reason = 'by hand' WHERE id = '{}'", uuid(token))
}

/// Returns the token's id in the form of the database.
pub(crate) fn uuid(token: &Made) -> uuid::Uuid {
    let bytes = tokend::secret::TokenId::parse(&token.id).unwrap().to_bytes();
    uuid::Uuid::from_bytes(bytes)
}

/// Checks that an error is UNAVAILABLE: nothing is known.
#[track_caller]
pub(crate) fn assert_unavailable(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

/// Checks that a cached record survives polls: while no token can be read, it stays VALID.
pub(crate) async fn stays_cached(client: &mut Client, database: &Database, token: &Made) {
    caught_up(client, database, token).await;
    let mut operator = database.connect().await;
    run(&mut operator, "BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").await;
    polled_twice(database).await;
    is_valid(client, token).await;
    run(&mut operator, "ROLLBACK").await;
}

/// Waits until two polls have started after this call: the first of them has then been handled.
pub(crate) async fn polled_twice(database: &Database) {
    for _ in 0..2 {
        let since = database.count(NOW).await;
        let polls = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND query LIKE 'SELECT pg_current_snapshot()::text%' AND query_start > to_timestamp({since} / 1e6)"
        );
        eventually("a poll", async || (database.count(polls.clone()).await > 0).then_some(())).await;
    }
}

/// Revokes a token so that no feed can learn of it from its change record, which is purged before
/// any poll.
pub(crate) async fn revoke_unrecorded(database: &Database, token: &Made) {
    let mut operator = database.connect().await;
    run(&mut operator, "BEGIN; LOCK TABLE change_horizon IN ACCESS EXCLUSIVE MODE").await;
    database.execute(revoking(token)).await;
    database.execute("SELECT pg_current_xact_id()").await;
    let purge = "DELETE FROM token_changes;
        UPDATE change_horizon SET purged_below = pg_snapshot_xmax(pg_current_snapshot()); COMMIT";
    run(&mut operator, purge).await;
}
