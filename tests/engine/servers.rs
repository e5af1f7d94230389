//! The server behind the connections changes: a promoted standby, a crash after which transaction
//! ids are used again, a restart, another server with a restored dump.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::PgConnection;
use tokend::api::proto::Verdict;
use tokend::private_postgres::Cluster;

use super::setup::{Made, becomes, caught_up, in_cache, revoking, run, settled, stays_cached};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::server::{Server, Standby};

/// Returns a replica that reaches a separate server through a proxy.
async fn behind_proxy(server: &Server) -> (Proxy, Replica) {
    let installation = Installation::on(Database::migrated_on(server.socket_dir()).await).await;
    let proxy = Proxy::to(server.socket_dir(), LinkState::Open).await;
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    // Any commit would flush what a crash is meant to lose.
    config.last_use_interval = Duration::from_hours(1);
    let replica = installation.serve(config).await;
    (proxy, replica)
}

/// Uses up transaction ids without any trace on the server's disk, so that it assigns them again
/// after a crash, and waits until the feed has a snapshot past them. Nothing may write that trace
/// before the crash: the WAL writer and the background writer, which logs the next id every 15 s, are
/// stopped, sealing the audit log and purging changes are blocked while the connections are open, and
/// the replica, which renews its row every 15 s, has just done so.
async fn burn_ids(replica: &Replica, witness: &Made) -> (Vec<PgConnection>, i64) {
    let database = &replica.installation.database;
    let renewed = "SELECT count(*) FROM replicas WHERE renew_time > clock_timestamp() - interval '3 s'";
    eventually("the row is renewed", async || (database.count(renewed).await > 0).then_some(())).await;
    for writer in ["walwriter", "background writer"] {
        let pid = format!("SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = '{writer}'");
        let pid = Pid::from_raw(i32::try_from(database.count(pid).await).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
    }
    let mut open: Vec<PgConnection> = Vec::new();
    let mut blocker = database.connect().await;
    let block = "BEGIN; LOCK TABLE change_horizon IN SHARE MODE;
        SELECT pg_advisory_lock(x'746f6b656e640002'::bigint)";
    run(&mut blocker, block).await;
    open.push(blocker);
    for _ in 0..30 {
        let mut connection = database.connect().await;
        run(&mut connection, "BEGIN; SELECT pg_current_xact_id()").await;
        open.push(connection);
    }
    // Its end moves all other snapshots past its id, and no process writes it to disk now.
    run(open.last_mut().unwrap(), "ROLLBACK").await;
    let horizon = database.count(XMAX).await;
    caught_up(&mut replica.root(), database, witness).await;
    (open, horizon)
}

const XMAX: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// Checks that the feed follows the restarted server: a change under a transaction id that was used
/// before.
async fn follows(replica: &Replica, database: &Database, horizon: i64, changed: &Made, kept: &Made) {
    database.execute(revoking(changed)).await;
    let now = database.count(XMAX).await;
    assert!(now <= horizon, "an id was used again: {now}, {horizon}");
    let mut root = replica.root();
    becomes(&mut root, changed, Verdict::Revoked).await;
    in_cache(&mut root, kept).await;
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    let mut server = Server::start();
    let (_proxy, replica) = behind_proxy(&server).await;
    let mut root = replica.root();
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);

    server.stop();
    server.go_on();
    replica.installation.database.execute(revoking(&changed)).await;

    becomes(&mut root, &changed, Verdict::Revoked).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn a_crash_that_reuses_transaction_ids_hides_no_change() {
    let mut server = Server::start();
    let (_proxy, replica) = behind_proxy(&server).await;
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);
    let (_open, horizon) = burn_ids(&replica, &kept).await;

    server.kill();
    server.go_on();

    follows(&replica, &replica.installation.database, horizon, &changed, &kept).await;
}

#[tokio::test]
async fn a_promoted_standby_is_followed_from_its_first_change() {
    let mut server = Server::start();
    let (proxy, replica) = behind_proxy(&server).await;
    let mut root = replica.root();
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);
    let standby = Standby::of(&server);
    let copy = Database::named(standby.socket_dir(), replica.installation.database.name());
    let tokens = replica.installation.database.count("SELECT count(*) FROM tokens").await;
    eventually("the standby has every token", async || {
        (copy.count("SELECT count(*) FROM tokens").await == tokens).then_some(())
    })
    .await;

    // A standby answers nothing, even where connections lead to it.
    proxy.lead_to(standby.socket_dir());
    eventually("nothing is known", async || {
        root.verify(crate::support::client::question(&kept.secret, &[])).await.err().map(|_| ())
    })
    .await;
    proxy.lead_to(server.socket_dir());
    in_cache(&mut root, &kept).await;
    in_cache(&mut root, &changed).await;

    let (_open, horizon) = burn_ids(&replica, &kept).await;
    server.kill();
    standby.promote();
    proxy.lead_to(standby.socket_dir());

    follows(&replica, &copy, horizon, &changed, &kept).await;
}

#[tokio::test]
async fn after_a_dump_and_restore_changes_are_seen_and_the_cache_fills_again() {
    let (old, new) = (Server::start(), Server::start());
    let (proxy, replica) = behind_proxy(&old).await;
    let mut root = replica.root();
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);
    let database = &replica.installation.database;
    // An old server: it has purged changes of more transactions than the new one has seen.
    for _ in 0..300 {
        run(&mut database.connect().await, "SELECT pg_current_xact_id()").await;
    }
    let purged = "UPDATE change_horizon SET purged_below = pg_snapshot_xmin(pg_current_snapshot()),
        next_below = pg_snapshot_xmin(pg_current_snapshot())";
    database.execute(purged).await;

    let restored = Database::named(new.socket_dir(), database.name());
    copy(database, &restored).await;
    proxy.lead_to(new.socket_dir());
    restored.execute(revoking(&changed)).await;

    becomes(&mut root, &changed, Verdict::Revoked).await;
    stays_cached(&mut root, &restored, &kept).await;
}

#[tokio::test]
async fn a_restore_with_the_documented_commands_is_followed_from_its_first_change() {
    let (old, new) = (Server::start(), Server::start());
    let (_proxy, replica) = behind_proxy(&old).await;
    let (changed, kept) = (settled(&replica).await, settled(&replica).await);
    let installation = replica.installation.clone();
    let database = &installation.database;
    // The old server has seen more transactions than the new one.
    for _ in 0..300 {
        run(&mut database.connect().await, "SELECT pg_current_xact_id()").await;
    }
    database.execute("UPDATE change_horizon SET next_below = pg_current_xact_id()").await;
    replica.shut_down().outcome().await.unwrap();

    let place = tempfile::tempdir().unwrap();
    let dump = place.path().join("tokend.dump");
    let mut dumping = Command::new("pg_dump");
    dumping.args(at(database)).args(["--format=custom", "--no-unlogged-table-data", "--file"]).arg(&dump);
    assert!(dumping.status().unwrap().success());
    let restored = Database::named(new.socket_dir(), database.name());
    Database::named(new.socket_dir(), "postgres")
        .execute(format!("CREATE DATABASE {}", database.name()))
        .await;
    let mut restoring = Command::new("pg_restore");
    restoring.args(at(&restored)).arg("--no-owner").arg(&dump);
    assert!(restoring.status().unwrap().success());
    let guide = include_str!("../../docs/operations.md");
    let (_, forgetting) = guide.split_once("psql tokend_restored -c \"").unwrap();
    run(&mut restored.connect().await, forgetting.split_once('"').unwrap().0).await;

    let installation = Installation { database: restored, ..installation };
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    for token in [&changed, &kept] {
        in_cache(&mut root, token).await;
    }
    installation.database.execute(revoking(&changed)).await;
    becomes(&mut root, &changed, Verdict::Revoked).await;
    stays_cached(&mut root, &installation.database, &kept).await;
}

/// Returns the arguments that name a database for Postgres's programs.
fn at(database: &Database) -> [String; 6] {
    let socket = database.socket_dir().to_str().unwrap().to_owned();
    let flags = ["-h", "-U", "-d"].map(str::to_owned);
    let [host, user, name] = flags;
    [host, socket, user, Cluster::ROLE.to_owned(), name, database.name().to_owned()]
}

/// Copies a database to another server, as an operator does.
async fn copy(from: &Database, to: &Database) {
    Database::named(to.socket_dir(), "postgres").execute(format!("CREATE DATABASE {}", to.name())).await;
    let place = tempfile::NamedTempFile::new().unwrap();
    let dump = fs::File::create(place.path()).unwrap();
    let dumped = Command::new("pg_dump").args(at(from)).stdout(dump).status().unwrap();
    assert!(dumped.success());
    let dump = fs::File::open(place.path()).unwrap();
    let restored = Command::new("psql")
        .args(at(to))
        .args(["-q", "-v", "ON_ERROR_STOP=1"])
        .stdin(dump)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(restored.success());
}
