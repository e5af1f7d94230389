//! Resuming after a position: nothing is missed, or the watch reports that something may be.

use std::collections::BTreeSet;

use tonic::Code;

use super::watcher::Watcher;
use crate::support::client::{created, ordinary, revoked};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::status::check;
use crate::support::{eventually, in_time};

/// Returns the number of tokens with changes in the table.
async fn changed(replica: &Replica) -> usize {
    let count =
        replica.installation.database.count("SELECT count(DISTINCT token_id) FROM token_changes").await;
    usize::try_from(count).unwrap()
}

#[tokio::test]
async fn a_watcher_misses_nothing_across_a_restart_of_tokend_and_an_outage_of_postgres() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let first = installation.serve(config.clone()).await;
    let (mut watcher, _) = Watcher::start(&mut first.root(), "").await;
    let mut received = BTreeSet::new();
    let before = changed(&first).await;

    for _ in 0..20 {
        created(&mut first.root(), ordinary()).await;
    }
    received.extend(watcher.changes(20).await.into_iter().map(|change| change.token_id));

    // Postgres is unreachable: the stream is silent, and continues by itself.
    proxy.set(LinkState::Cut);
    let database = &installation.database;
    database.execute("UPDATE tokens SET name = 'meanwhile' WHERE user_id = 'ada'").await;
    proxy.set(LinkState::Open);
    received.extend(watcher.changes(20).await.into_iter().map(|change| change.token_id));
    assert_eq!(received.len(), 20);

    // tokend is gone: another replica resumes after the position.
    let position = watcher.position.clone();
    first.shut_down().outcome().await.unwrap();
    let second = installation.serve(config).await;
    for _ in 0..20 {
        created(&mut second.root(), ordinary()).await;
    }
    let (mut watcher, missed) = Watcher::start(&mut second.root(), &position).await;
    received.extend(missed.into_iter().map(|change| change.token_id));
    let id = created(&mut second.root(), ordinary()).await.token.unwrap().id;
    revoked(&mut second.root(), &id, "").await;
    eventually("the last change is heard", async || {
        received.extend(watcher.next().await.unwrap().changes.into_iter().map(|change| change.token_id));
        received.contains(&id).then_some(())
    })
    .await;

    assert_eq!(received.len(), changed(&second).await - before);
}

#[tokio::test]
async fn a_burst_reaches_later_watchers_completely() {
    let replica = Replica::start().await;
    let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;
    let position = watcher.position.clone();
    let insert = "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time,
             created_by, durable_hash, mac, mac_key_id)
         SELECT gen_random_uuid(), 'default', 'u', 'n', '{}', '{}', now(), 'bootstrap', durable_hash, mac,
             mac_key_id FROM tokens, generate_series(1, 3000) LIMIT 3000";
    assert_eq!(replica.installation.database.execute(insert).await, 3000);

    let live: BTreeSet<_> = watcher.changes(3000).await.into_iter().map(|change| change.token_id).collect();
    let (_, missed) = Watcher::start(&mut replica.root(), &position).await;
    let missed: BTreeSet<_> = missed.into_iter().map(|change| change.token_id).collect();

    assert_eq!(live.len(), 3000);
    assert_eq!(live, missed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnecting_fleet_catches_up_over_few_connections() {
    let replica = Replica::start().await;
    let (mut scout, _) = Watcher::start(&mut replica.root(), "").await;
    let position = scout.position.clone();
    let made = created(&mut replica.root(), ordinary()).await.token.unwrap().id;
    // From then on the change is after the position.
    while scout.changes(1).await.iter().all(|change| change.token_id != made) {}
    let (database, backends) = (
        &replica.installation.database,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
    );
    let before = database.count(backends).await;
    let coming: Vec<_> = (0..100)
        .map(|_| {
            let (mut root, position) = (replica.root(), position.clone());
            tokio::spawn(async move { Watcher::start(&mut root, &position).await })
        })
        .collect();

    let mut most = before;
    while !coming.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(database.count(backends).await);
    }

    for one in coming {
        let (_, missed) = one.await.unwrap();
        assert!(missed.iter().any(|change| change.token_id == made));
    }
    // The watches that catch up, and the pool's connections.
    assert!(most < before + 16, "{before} connections became {most}");
}

#[tokio::test]
async fn a_position_before_a_purge_or_of_another_epoch_is_too_old() {
    let replica = Replica::start().await;
    let (watcher, _) = Watcher::start(&mut replica.root(), "").await;
    let database = &replica.installation.database;

    // As the purge does after an hour.
    let xid = "UPDATE change_horizon SET purged_below = (pg_current_xact_id()::text::bigint + 1)::text::xid8";
    database.execute(xid).await;
    let request =
        tokend::api::proto::WatchTokensRequest { after: watcher.position.clone(), ..Default::default() };
    let mut stream = replica.root().watch_tokens(request).await.unwrap().into_inner();
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    check(&status, Code::FailedPrecondition, "POSITION_TOO_OLD");
    database.execute("UPDATE change_horizon SET purged_below = '0'").await;

    // As after a crash.
    let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;
    database.execute("DELETE FROM server_mark").await;
    check(&watcher.end().await, Code::FailedPrecondition, "POSITION_TOO_OLD");
}

#[tokio::test]
async fn a_watcher_that_returns_after_a_purge_is_notified_although_the_others_have_read_everything() {
    let replica = Replica::start().await;
    let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;
    let (database, position) = (&replica.installation.database, watcher.position.clone());
    let later = database.count("SELECT pg_current_xact_id()::text::bigint").await;
    // Transactions of other tests count, too.
    let ended = format!("SELECT (pg_snapshot_xmin(pg_current_snapshot()) > '{later}')::int::bigint");
    eventually("earlier transactions end", async || (database.count(&*ended).await == 1).then_some(())).await;
    let id = created(&mut replica.root(), ordinary()).await.token.unwrap().id;
    while watcher.changes(1).await.iter().all(|change| change.token_id != id) {}

    // Changes after the old position were purged, none after the present one.
    let purge = format!("UPDATE change_horizon SET purged_below = '{}'", later + 1);
    database.execute(purge).await;

    let request = tokend::api::proto::WatchTokensRequest { after: position, ..Default::default() };
    let mut returned = replica.root().watch_tokens(request).await.unwrap().into_inner();
    let status = in_time("the end of the stream", returned.message()).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "POSITION_TOO_OLD");
    let id = created(&mut replica.root(), ordinary()).await.token.unwrap().id;
    while watcher.changes(1).await.iter().all(|change| change.token_id != id) {}
}

#[tokio::test]
async fn a_watcher_is_notified_when_unread_changes_were_purged() {
    let replica = Replica::start().await;
    let end = eventually("a watcher ends", async || {
        let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;
        // As after an hour in which this replica could not read.
        let purge =
            "UPDATE change_horizon SET purged_below = (pg_current_xact_id()::text::bigint + 1)::text::xid8";
        replica.installation.database.execute(purge).await;
        // On a busy machine the watcher's credential cannot always be judged in time.
        Some(watcher.end().await).filter(|end| end.code() != Code::Unavailable)
    })
    .await;
    check(&end, Code::FailedPrecondition, "POSITION_TOO_OLD");
}
