//! Clients with a deadline: nothing runs for longer, not in Postgres either.

use std::time::Duration;

use tokend::api::proto::ListTokensRequest;
use tonic::{Code, Request};

use crate::support::client::ordinary;
use crate::support::eventually;
use crate::support::replica::Replica;

/// Counts the statements of calls that wait for a lock: authentication of the caller, and walking a list.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
        AND (query LIKE '%FOR SHARE%' OR query LIKE '%AS walk%')";

fn for_a_moment<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(2));
    request
}

#[tokio::test]
async fn a_statement_ends_in_postgres_at_the_deadline_of_its_caller() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    // Warm, so that only the calls' own statements wait for the lock.
    replica.root().list_tokens(ListTokensRequest::default()).await.unwrap();
    let mut lock = database.connect().await;
    let locks = "LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE";
    sqlx::query("BEGIN").execute(&mut lock).await.unwrap();
    sqlx::query(locks).execute(&mut lock).await.unwrap();

    let (mut creator, mut lister) = (replica.root(), replica.root());
    let creation = tokio::spawn(async move { creator.create_token(for_a_moment(ordinary())).await });
    let listing =
        tokio::spawn(async move { lister.list_tokens(for_a_moment(ListTokensRequest::default())).await });
    eventually("both wait", async || (database.count(WAITING).await == 2).then_some(())).await;
    for outcome in [creation.await.unwrap().err(), listing.await.unwrap().err()] {
        let code = outcome.expect("no answer is possible").code();
        // Which timeout expires first is not specified.
        assert!(matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    }

    // The lock is still held: Postgres itself has ended the statements that waited for it.
    eventually("nothing waits any more", async || (database.count(WAITING).await == 0).then_some(())).await;
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    assert!(replica.root().list_tokens(ListTokensRequest::default()).await.is_ok());
}
