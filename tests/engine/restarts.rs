//! When the feed cannot know what has changed it starts over, and then the cache fills again.

use std::time::Duration;

use tokend::api::proto::Verdict;
use tokend::verify::Bounds;

use super::setup::{
    becomes, cached, in_cache, is_valid, reaches_the_cache, revoke_unrecorded, revoking, run, settled,
    stays_cached,
};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_feed_whose_snapshot_is_older_than_the_purge_restarts() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);

    revoke_unrecorded(&replica.installation.database, &changed).await;

    becomes(&mut root, &changed, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn a_server_that_lost_its_mark_counts_as_another_server() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);
    let mut operator = database.connect().await;

    let crash = "DELETE FROM token_changes; DELETE FROM server_mark";
    run(&mut operator, &format!("BEGIN; {}; {crash}; COMMIT", revoking(&changed))).await;

    reaches_the_cache(&replica, &changed, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
    assert_eq!(database.count("SELECT count(*) FROM server_mark").await, 1);
}

#[tokio::test]
async fn replicas_agree_on_the_mark_of_a_new_server() {
    let installation = Installation::new().await;
    let one = installation.serve(installation.config()).await;
    let other = installation.serve(installation.config()).await;
    let kept = cached(&mut one.root()).await;
    in_cache(&mut other.root(), &kept).await;

    installation.database.execute("DELETE FROM server_mark").await;

    for replica in [&one, &other] {
        eventually("both go on", async || {
            in_cache(&mut replica.root(), &kept).await;
            Some(())
        })
        .await;
    }
}

/// As restored from the dump of a server with more transactions than this one will ever run in a test.
const FOREIGN: &str = "UPDATE change_horizon SET purged_below = '4000000000', next_below = '5000000000',
    next_time = now() - interval '2 hours'";

#[tokio::test]
async fn a_horizon_from_another_server_neither_empties_the_cache_nor_purges() {
    let installation = Installation::new().await;
    let database = &installation.database;
    database.execute(FOREIGN).await;
    database
        .execute("INSERT INTO token_changes (token_id, organization_id) VALUES (gen_random_uuid(), 'o')")
        .await;

    let replica = installation.serve(installation.config()).await;

    let mut root = replica.root();
    let (kept, changed) = (settled(&replica).await, settled(&replica).await);
    stays_cached(&mut root, database, &kept).await;
    database.execute(revoking(&changed)).await;
    becomes(&mut root, &changed, Verdict::Revoked).await;
    let foreign = "SELECT count(*) FROM change_horizon WHERE next_below >= '5000000000'";
    eventually("the horizon is this server's", async || (database.count(foreign).await == 0).then_some(()))
        .await;
    assert!(database.count("SELECT count(*) FROM token_changes").await >= 4, "nothing was purged");
    is_valid(&mut root, &kept).await;
}

#[tokio::test]
async fn old_changes_are_purged_and_the_feed_continues() {
    let installation = Installation::new().await;
    let database = &installation.database;
    database
        .execute("INSERT INTO token_changes (token_id, organization_id) VALUES (gen_random_uuid(), 'o')")
        .await;
    let due = "UPDATE change_horizon SET next_below = pg_snapshot_xmin(pg_current_snapshot()),
        next_time = now() - interval '2 hours'";
    database.execute(due).await;

    let replica = installation.serve(installation.config()).await;

    let purged = "SELECT count(*) FROM change_horizon WHERE purged_below > '0'";
    eventually("the purge", async || (database.count(purged).await == 1).then_some(())).await;
    let mut root = replica.root();
    let (kept, changed) = (settled(&replica).await, settled(&replica).await);
    database.execute(revoking(&changed)).await;
    becomes(&mut root, &changed, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn a_replica_registers_its_bound_before_it_answers_from_its_cache_and_again_on_a_new_server() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.bounds = Bounds { max_staleness: Duration::from_secs(2), outage_grace: Duration::from_secs(3) };
    let replica = installation.serve(config).await;
    let kept = cached(&mut replica.root()).await;
    let registered = "SELECT count(*) FROM replicas WHERE bound = interval '5 seconds'";
    assert_eq!(installation.database.count(registered).await, 1);

    installation.database.execute("DELETE FROM replicas").await;
    installation.database.execute("DELETE FROM server_mark").await;

    let again = async || (installation.database.count(registered).await == 1).then_some(());
    eventually("the row is on the new server too", again).await;
    in_cache(&mut replica.root(), &kept).await;
}
