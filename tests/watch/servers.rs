//! Postgres restarts or crashes during watches: what was acknowledged is reported, or the watch
//! reports that something may be missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{Code, Status};

use super::watcher::Watcher;
use crate::support::client::{Client, created, ordinary};
use crate::support::database::Database;
use crate::support::replica::{Installation, Replica};
use crate::support::server::Server;
use crate::support::status::check;
use crate::support::{eventually, in_time};

async fn replica_of(server: &Server) -> Replica {
    let installation = Installation::on(Database::migrated_on(server.socket_dir()).await).await;
    installation.serve(installation.config()).await
}

/// Creates tokens until told to end, whatever fails meanwhile; returns the acknowledged ones.
async fn create_on(mut root: Client, end: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    while !end.load(Ordering::Acquire) {
        if let Ok(answer) = root.create_token(ordinary()).await {
            acknowledged.insert(answer.into_inner().token.unwrap().id);
        }
    }
    acknowledged
}

/// Reads until all of these tokens were reported, besides those in `received`.
async fn hears(watcher: &mut Watcher, mut received: BTreeSet<String>, all: &BTreeSet<String>) {
    in_time("all that was acknowledged", async {
        while !received.is_superset(all) {
            received.extend(watcher.next().await.unwrap().changes.into_iter().map(|change| change.token_id));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_miss_nothing_across_a_restart_of_postgres_during_creations() {
    let mut server = Server::start();
    let replica = replica_of(&server).await;
    let mut root = replica.root();
    let mut staying = Vec::new();
    for _ in 0..3 {
        staying.push(Watcher::start(&mut root, "").await.0);
    }
    let leaving = Watcher::start(&mut root, "").await.0.position;
    let end = Arc::new(AtomicBool::new(false));
    let creating = tokio::spawn(create_on(replica.root(), Arc::clone(&end)));
    let made = "SELECT count(*) FROM tokens WHERE user_id = 'ada'";
    let more = async |than: i64| {
        let database = &replica.installation.database;
        eventually("more tokens", async || (database.count(made).await > than).then_some(())).await;
        database.count(made).await
    };

    let before = more(10).await;
    server.stop();
    server.go_on();
    more(before + 10).await;
    end.store(true, Ordering::Release);
    let acknowledged = creating.await.unwrap();

    assert!(acknowledged.len() > 20);
    for mut watcher in staying {
        hears(&mut watcher, BTreeSet::new(), &acknowledged).await;
    }
    // A watcher that left before the restart resumes after its position.
    let (mut watcher, missed) = Watcher::start(&mut root, &leaving).await;
    hears(&mut watcher, missed.into_iter().map(|change| change.token_id).collect(), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_notified_of_possible_gaps_after_a_crash_of_postgres() {
    let mut server = Server::start();
    let replica = replica_of(&server).await;
    let mut root = replica.root();
    let (mut watcher, _) = Watcher::start(&mut root, "").await;
    created(&mut root, ordinary()).await;
    watcher.changes(1).await;

    server.kill();
    server.go_on();

    let position_too_old = |status: Status| check(&status, Code::FailedPrecondition, "POSITION_TOO_OLD");
    position_too_old(watcher.end().await);
    // Also after a position from before the crash, as soon as the feed follows the restarted server.
    let request =
        tokend::api::proto::WatchTokensRequest { after: watcher.position.clone(), ..Default::default() };
    let refused = async {
        let mut stream = root.watch_tokens(request).await.unwrap().into_inner();
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    position_too_old(in_time("a refusal", refused).await);
    let (mut anew, _) = Watcher::start(&mut root, "").await;
    let id = eventually("a token", async || root.create_token(ordinary()).await.ok()).await;
    let id = id.into_inner().token.unwrap().id;
    hears(&mut anew, BTreeSet::new(), &BTreeSet::from([id])).await;
}
