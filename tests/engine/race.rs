//! The fill race, made to happen: Postgres holds the answer to one read, which has taken its snapshot, until
//! the feed has handled a change that the read could not see. What was read is answered, for the question
//! came first, but must not enter the cache.
//!
//! With the guard taken out (`Gate::fill` made to insert all that was found) both tests find VALID where they
//! want REVOKED; tests/model keeps that shown for every interleaving.

use sqlx::postgres::PgConnection;
use tokend::grpc::proto::{Verdict, VerifyResponse};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use super::setup::{
    Made, assert_unavailable, is_valid, made, polled_twice, revoke_unrecorded, revoking, run,
};
use crate::support::client::{question, verified};
use crate::support::database::Database;
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

/// Lets the loader's statement, and no other, wait for whoever holds the advisory lock, in the middle of its
/// execution.
const HOOK: &str = r"
    ALTER VIEW server_epoch RENAME TO real_epoch;
    CREATE FUNCTION hold() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '%LEFT JOIN tokens%' THEN
            PERFORM pg_advisory_xact_lock_shared(7);
        END IF;
        RETURN '';
    END $$;
    CREATE VIEW server_epoch AS SELECT epoch || hold() AS epoch FROM real_epoch";

/// A Verify whose read is held in Postgres.
struct Held {
    holder: PgConnection,
    answer: JoinHandle<Result<Response<VerifyResponse>, Status>>,
}

impl Held {
    async fn begin(replica: &Replica, token: &Made) -> Self {
        let database = &replica.installation.database;
        let mut holder = database.connect().await;
        run(&mut holder, "SELECT pg_advisory_lock(7)").await;
        let (mut root, secret) = (replica.root(), token.secret.clone());
        let answer = tokio::spawn(async move { root.verify(question(&secret, &[])).await });
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("the read waits", async || (database.count(waiting).await > 0).then_some(())).await;
        Self { holder, answer }
    }

    /// Lets the read go on; `None` when it had been held for longer than the loader waits.
    async fn end(mut self) -> Option<Verdict> {
        run(&mut self.holder, "SELECT pg_advisory_unlock(7)").await;
        match in_time("the held Verify", self.answer).await.unwrap() {
            Ok(answer) => Some(answer.into_inner().verdict()),
            Err(status) => {
                assert_unavailable(&status);
                None
            }
        }
    }
}

async fn hooked() -> Replica {
    let installation = Installation::new().await;
    run(&mut installation.database.connect().await, HOOK).await;
    installation.serve(installation.config()).await
}

/// Holds the read of a token, lets something happen to it, and checks what is then said of it.
async fn meanwhile(replica: &Replica, happens: impl AsyncFn(&Database, &Made)) {
    let (mut root, database) = (replica.root(), &replica.installation.database);
    // Again where this machine was too slow for the loader's patience.
    eventually("a read that outlives a revocation", async || {
        let token = made(&mut root).await;
        is_valid(&mut root, &Made { id: String::new(), secret: replica.installation.root_secret.clone() })
            .await;
        let held = Held::begin(replica, &token).await;
        happens(database, &token).await;
        let before = held.end().await?;
        assert_eq!(before, Verdict::Valid, "read before the revocation");
        for _ in 0..3 {
            assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Revoked);
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_read_before_a_revocation_does_not_enter_the_cache_after_it() {
    let replica = hooked().await;

    meanwhile(&replica, async |database, token| {
        database.execute(revoking(token)).await;
        polled_twice(database).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_read_before_the_feed_started_anew_does_not_enter_the_cache_after_it() {
    let replica = hooked().await;

    meanwhile(&replica, async |database, token| {
        revoke_unrecorded(database, token).await;
        polled_twice(database).await;
    })
    .await;
}
