//! The fill race, forced: Postgres holds the result of a read, which has taken its snapshot, until
//! the feed has handled a change that the read could not see. The result is returned, because the
//! request came before the change, but must not enter the cache.
//!
//! Without the guard (`FillGuard::fill` changed to insert everything that was read) both tests find VALID
//! where they expect REVOKED; tests/model checks that for every interleaving.

use tokend::api::proto::{Verdict, VerifyResponse};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use super::hold::{Hold, READ, make_holdable};
use super::setup::{Made, assert_unavailable, is_valid, made, polled_twice, revoke_unrecorded, revoking};
use crate::support::client::{question, verified};
use crate::support::database::Database;
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

/// A Verify whose read is held in Postgres.
struct Held {
    hold: Hold,
    answer: JoinHandle<Result<Response<VerifyResponse>, Status>>,
}

impl Held {
    async fn begin(replica: &Replica, token: &Made) -> Self {
        let database = &replica.installation.database;
        let hold = Hold::begin(database).await;
        let (mut root, secret) = (replica.root(), token.secret.clone());
        let answer = tokio::spawn(async move { root.verify(question(&secret, &[])).await });
        hold.a_read_waits(database).await;
        Self { hold, answer }
    }

    /// Lets the read continue; `None` if it was held for longer than the loader's timeout.
    async fn end(self) -> Option<Verdict> {
        self.hold.end().await;
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
    make_holdable(&installation.database, READ).await;
    installation.serve(installation.config()).await
}

/// Holds the read of a token, changes the token meanwhile, and checks the verdicts that follow.
async fn meanwhile(replica: &Replica, happens: impl AsyncFn(&Database, &Made)) {
    let (mut root, database) = (replica.root(), &replica.installation.database);
    // Repeated if this machine was too slow for the loader's timeout.
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
async fn a_read_from_before_a_revocation_does_not_enter_the_cache_after_it() {
    let replica = hooked().await;

    meanwhile(&replica, async |database, token| {
        database.execute(revoking(token)).await;
        polled_twice(database).await;
    })
    .await;
}

#[tokio::test]
async fn a_read_from_before_a_feed_restart_does_not_enter_the_cache_after_it() {
    let replica = hooked().await;

    meanwhile(&replica, async |database, token| {
        revoke_unrecorded(database, token).await;
        polled_twice(database).await;
    })
    .await;
}
