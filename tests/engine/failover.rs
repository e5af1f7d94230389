//! A primary and a streaming standby behind a real `HAProxy`, configured as in the guide, and
//! replicas under load while the primary fails and the standby is promoted: it dies, or it hangs
//! and comes back as a second primary. Skipped where `HAProxy` is not installed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokend::api::proto::Verdict;
use tokend::private_postgres::Cluster;

use super::fault_test::{FaultTest, resumption};
use super::fleet::{Process, report};
use super::setup::{Made, becomes, in_cache, made, revoking, run, settles_in, uuid};
use crate::support::client::revoked;
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::program::{Running, TestDir, find, free_address, shown};
use crate::support::replica::Installation;
use crate::support::server::{Server, Standby};

const GUIDE: &str = include_str!("../../docs/operations.md");

struct Scene {
    old: Server,
    new: Standby,
    installation: Installation,
    fleet: Vec<Process>,
    /// Never revoked.
    kept: Made,
    url: String,
    _proxy: Running,
}

impl Scene {
    async fn set(haproxy: &Path) -> Self {
        let old = Server::start();
        let installation = Installation::on(Database::migrated_on(old.socket_dir()).await).await;
        installation.database.execute("CREATE ROLE haproxy_check LOGIN").await;
        let new = Standby::of(&old);
        // On the old primary only: the new one has no standby.
        installation.database.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        installation.database.execute("SELECT pg_reload_conf()").await;
        eventually("commits wait for the standby", async || {
            let asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (installation.database.count(asked).await == 1).then_some(())
        })
        .await;
        let address = free_address();
        let proxy = start_proxy(haproxy, address, [old.socket_dir(), new.socket_dir()]).await;
        let url = format!("postgres://{}@{address}/tokend?sslmode=disable", Cluster::ROLE);
        let mut fleet = Vec::new();
        for _ in 0..2 {
            fleet.push(Process::start(&installation, &url, &[]).await);
        }
        let kept = made(&mut fleet[0].root()).await;
        Self { old, new, installation, fleet, kept, url, _proxy: proxy }
    }

    /// Returns the database on the standby.
    fn copy(&self) -> Database {
        Database::named(self.new.socket_dir(), self.installation.database.name())
    }
}

/// Starts the proxy with the configuration in the guide, on the servers' own sockets.
async fn start_proxy(haproxy: &Path, address: SocketAddr, servers: [&Path; 2]) -> Running {
    let mut config = shown(GUIDE, "haproxy.cfg").replace("127.0.0.1:6432", &address.to_string());
    for (number, socket_dir) in (1..).zip(servers) {
        let socket = format!("unix@{}/.s.PGSQL.{}", socket_dir.display(), Cluster::PORT);
        config = config.replace(&format!("10.0.0.{number}:5432"), &socket);
    }
    let test_dir = TestDir::new();
    let config = test_dir.write("haproxy.cfg", &format!("{config}\n"));
    let mut running = test_dir.start(haproxy, &["-db", "-f", &config]);
    eventually("the proxy listens", async || {
        running.check();
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    running
}

/// Waits until several more changes have been acknowledged.
async fn in_progress(fault_test: &FaultTest) {
    let before = (fault_test.revoked(), fault_test.created());
    eventually("the load is under way", async || {
        (fault_test.revoked() > before.0 + 5 && fault_test.created() > before.1 + 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_nothing_that_was_acknowledged() {
    let Some(haproxy) = find("haproxy") else { return };
    let mut scene = Scene::set(&haproxy).await;
    let fault_test = FaultTest::start(&scene.fleet, 80).await;
    in_progress(&fault_test).await;

    scene.old.kill();
    scene.new.promote();

    let resumption = resumption(&scene.fleet, &scene.kept).await;
    report(&format!("every replica answers {resumption:.0?} after the promotion"));
    in_progress(&fault_test).await;
    fault_test.raise(&scene.fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_is_not_trusted() {
    let Some(haproxy) = find("haproxy") else { return };
    let scene = Scene::set(&haproxy).await;
    let mut root = scene.fleet[0].root();
    let changed = made(&mut root).await;
    for process in &scene.fleet {
        let database = &scene.installation.database;
        settles_in(&mut process.root(), database, &process.root_token(), &changed).await;
    }
    let fault_test = FaultTest::start(&scene.fleet, 80).await;
    in_progress(&fault_test).await;

    scene.old.freeze();
    scene.new.promote();
    resumption(&scene.fleet, &scene.kept).await;
    scene.copy().execute(revoking(&changed)).await;
    scene.old.thaw();

    // Long enough for the proxy to see that the old primary is back, and a primary.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let old = &scene.installation.database;
    assert_eq!(old.count("SELECT pg_is_in_recovery()::int::bigint").await, 0);
    for process in &scene.fleet {
        becomes(&mut process.root(), &changed, Verdict::Revoked).await;
        in_cache(&mut process.root(), &scene.kept).await;
    }
    // New connections do not reach the old primary either.
    for _ in 0..8 {
        let mut connection = PgConnection::connect(&scene.url).await.unwrap();
        let asked = "SELECT count(*) FROM tokens WHERE revoke_reason = 'by hand'";
        assert_eq!(sqlx::query_scalar::<_, i64>(asked).fetch_one(&mut connection).await.unwrap(), 1);
    }
    let late = made(&mut root).await;
    revoked(&mut root, &late.id, "").await;
    assert_eq!(old.count(format!("SELECT count(*) FROM tokens WHERE id = '{}'", uuid(&late))).await, 0);
    // Nor can it acknowledge anything: its commits wait for the lost standby.
    let mut connection = old.connect().await;
    let commit = run(&mut connection, "SET synchronous_commit = 'on'; UPDATE tokens SET name = 'late'");
    assert!(tokio::time::timeout(Duration::from_secs(2), commit).await.is_err());

    in_progress(&fault_test).await;
    fault_test.raise(&scene.fleet).await;
}
