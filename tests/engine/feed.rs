//! The feed misses no change, in whatever order and however late transactions commit. Changes are
//! made in SQL, as in psql, so without a NOTIFY, except in the tests of NOTIFY.

use std::time::Duration;

use tokend::api::proto::Verdict;
use tokend::verify::Bounds;

use super::hold::{Hold, make_holdable};
use super::setup::{
    NOW, becomes, cached, caught_up, in_cache, is_valid, made, reaches_the_cache, revoking, run, settled,
    settles, uuid,
};
use crate::support::client::{revocation, revoked, verified};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::{eventually, in_time};

#[tokio::test]
async fn a_change_that_commits_after_later_ones_is_seen() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (early, late, third) = (settled(&replica).await, settled(&replica).await, settled(&replica).await);
    let (mut writer, mut quick) = (database.connect().await, database.connect().await);

    run(&mut writer, &format!("BEGIN; {}", revoking(&early))).await;
    run(&mut quick, &revoking(&late)).await;
    becomes(&mut root, &late, Verdict::Revoked).await;
    // After many polls and transactions.
    for _ in 0..3 {
        run(&mut quick, "SELECT pg_current_xact_id()").await;
        caught_up(&mut root, database, &third).await;
    }
    is_valid(&mut root, &early).await;
    run(&mut writer, "COMMIT").await;

    reaches_the_cache(&replica, &early, Verdict::Revoked).await;
    is_valid(&mut root, &third).await;
}

#[tokio::test]
async fn a_change_that_is_rolled_back_never_shows() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (kept, other) = (settled(&replica).await, settled(&replica).await);
    let mut writer = database.connect().await;

    run(&mut writer, &format!("BEGIN; {}", revoking(&kept))).await;
    run(&mut writer, "ROLLBACK").await;
    database.execute(revoking(&other)).await;

    reaches_the_cache(&replica, &other, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn a_change_in_a_subtransaction_counts_with_its_transaction() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (undone, inner, quick) = (settled(&replica).await, settled(&replica).await, settled(&replica).await);
    let mut writer = database.connect().await;

    let undo = revoking(&undone);
    run(&mut writer, &format!("BEGIN; SAVEPOINT one; {undo}; ROLLBACK TO one")).await;
    run(&mut writer, &format!("SAVEPOINT two; {}; RELEASE two", revoking(&inner))).await;
    database.execute(revoking(&quick)).await;
    becomes(&mut root, &quick, Verdict::Revoked).await;
    is_valid(&mut root, &inner).await;
    run(&mut writer, "COMMIT").await;

    reaches_the_cache(&replica, &inner, Verdict::Revoked).await;
    in_cache(&mut root, &undone).await;
}

#[tokio::test]
async fn no_change_is_lost_in_a_burst_of_fifty_thousand() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (first, last, kept) = (settled(&replica).await, settled(&replica).await, settled(&replica).await);
    let mut holder = database.connect().await;
    // The poll waits for this lock, so that one poll reads all of it.
    run(&mut holder, "BEGIN; LOCK TABLE change_horizon IN ACCESS EXCLUSIVE MODE").await;

    database.execute(revoking(&first)).await;
    for _ in 0..5 {
        let burst = "INSERT INTO token_changes (token_id, organization_id) SELECT gen_random_uuid(), 'o' FROM generate_series(1, 10000)";
        database.execute(burst).await;
    }
    // Many changes of the same token before the last one.
    let repeats = "INSERT INTO token_changes (token_id, organization_id) SELECT '{}'::uuid, 'o' FROM generate_series(1, 10001)";
    database.execute(repeats.replace("{}", &uuid(&first).to_string())).await;
    database.execute(revoking(&last)).await;
    run(&mut holder, "COMMIT").await;

    reaches_the_cache(&replica, &last, Verdict::Revoked).await;
    reaches_the_cache(&replica, &first, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

/// Recognizes the feed's statement.
const POLL: &str = "%FROM trigger_faults%";

#[tokio::test]
async fn a_burst_whose_rest_is_purged_while_it_is_read_clears_the_cache() {
    let installation = Installation::new().await;
    make_holdable(&installation.database, POLL).await;
    let replica = installation.serve(installation.config()).await;
    let (mut root, database) = (replica.root(), &installation.database);
    let (last, kept) = (settled(&replica).await, settled(&replica).await);
    // The next poll waits for this lock, and takes its snapshot after it.
    let mut holder = database.connect().await;
    run(&mut holder, "BEGIN; LOCK TABLE change_horizon IN ACCESS EXCLUSIVE MODE").await;
    let burst = "INSERT INTO token_changes (token_id, organization_id)
        SELECT gen_random_uuid(), 'o' FROM generate_series(1, 10000)";
    database.execute(burst).await;
    // On the second page.
    database.execute(revoking(&last)).await;
    let hold = Hold::begin(database).await;
    run(&mut holder, "COMMIT").await;
    hold.a_read_waits(database).await;

    // A purge deletes only changes of transactions below every running one; other tests run some, too.
    let running = "SELECT count(*) FROM token_changes WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";
    eventually("no earlier transaction runs", async || (database.count(running).await == 0).then_some(()))
        .await;
    let purge = "BEGIN; UPDATE change_horizon SET purged_below =
            (SELECT (max(xid::text::bigint) + 1)::text::xid8 FROM token_changes);
        DELETE FROM token_changes; COMMIT";
    run(&mut holder, purge).await;
    hold.end().await;

    reaches_the_cache(&replica, &last, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn a_token_that_is_deleted_or_renamed_in_sql_leaves_the_cache() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let (deleted, renamed) = (settled(&replica).await, settled(&replica).await);

    database.execute(format!("DELETE FROM tokens WHERE id = '{}'", uuid(&deleted))).await;
    database
        .execute(format!("UPDATE tokens SET id = gen_random_uuid() WHERE id = '{}'", uuid(&renamed)))
        .await;

    reaches_the_cache(&replica, &deleted, Verdict::NotFound).await;
    reaches_the_cache(&replica, &renamed, Verdict::NotFound).await;
}

/// Returns two replicas that poll every 15 s, the second one through the proxy.
async fn rarely_polling(proxy: &Proxy) -> (Replica, Replica) {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.bounds = Bounds { max_staleness: Duration::from_mins(1), outage_grace: Duration::ZERO };
    let one = installation.serve(config.clone()).await;
    config.database = proxy.lead(&config.database);
    (one, installation.serve(config).await)
}

/// Revokes, on one replica, five tokens that the other has cached. With polls only it would take
/// more than a minute until the other one refuses all of them.
async fn noticed_five_times(one: &Replica, other: &Replica) {
    let (mut here, mut there) = (one.root(), other.root());
    let rounds = async {
        for _ in 0..5 {
            let token = made(&mut here).await;
            settles(other, &token).await;
            revoked(&mut here, &token.id, "").await;
            becomes(&mut there, &token, Verdict::Revoked).await;
        }
    };
    in_time("hearing of five revocations", rounds).await;
}

#[tokio::test]
async fn a_revocation_is_noticed_long_before_the_poll() {
    let proxy = Proxy::start(LinkState::Open).await;
    let (one, other) = rarely_polling(&proxy).await;

    noticed_five_times(&one, &other).await;

    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    one.installation.database.execute(kill).await;
    let mut there = other.root();
    // Both can be reached again.
    for replica in [&one, &other] {
        let _ = cached(&mut replica.root()).await;
    }
    cached(&mut there).await;
    noticed_five_times(&one, &other).await;
}

#[tokio::test]
async fn a_listener_whose_connection_is_dead_reconnects() {
    let proxy = Proxy::start(LinkState::Open).await;
    let (one, other) = rarely_polling(&proxy).await;
    noticed_five_times(&one, &other).await;

    let database = &one.installation.database;
    let lost = database.count(NOW).await;
    proxy.lose();
    let listening = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND query LIKE 'LISTEN%' AND backend_start > to_timestamp({lost} / 1e6)"
    );
    let listening = async || (database.count(listening.clone()).await == 1).then_some(());
    eventually("another connection listens", listening).await;

    noticed_five_times(&one, &other).await;
}

#[tokio::test]
async fn the_revoking_replica_refuses_at_once() {
    let proxy = Proxy::start(LinkState::Open).await;
    let (_, other) = rarely_polling(&proxy).await;
    let mut root = other.root();
    for _ in 0..20 {
        let token = cached(&mut root).await;

        root.revoke_token(revocation(&token.id, "")).await.unwrap();

        assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Revoked);
    }
}
