//! A primary whose commits wait for a standby that is gone: nothing that a failover could lose is
//! acknowledged, not by a retry either, and reads continue where they are right.

use std::time::Duration;

use sqlx::PgConnection;
use tokend::api::proto::{CreateTokenRequest, RotateTokenRequest, Verdict};
use tokend::domain::{CertificateMapping, CertificateMappings, OrganizationId, ReservedScope, SubjectName};
use tokend::server::ServerConfig;
use tokend::verify::Bounds;
use tonic::{Code, Status};

use super::acknowledged::{Change, OverHttp, all_are_covered, full};
use super::authority::{Authority, Files, channel};
use super::fleet::{Process, url};
use super::setup::{assert_unavailable, becomes, cached, in_cache, made, run, stays_cached};
use crate::support::client::{
    Client, bearing, created, nanos, new_request_id, ordinary, question, revocation, revoked, rotation,
};
use crate::support::database::Database;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica, wait_until_serving};
use crate::support::server::{Server, Standby};
use crate::support::{eventually, in_time};

/// The connections whose COMMIT waits for a standby.
const WAITING: &str = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";

struct Pair {
    old: Server,
    new: Standby,
    installation: Installation,
    /// Prevents the sealing of the audit log: those commits would wait too.
    _sealer: PgConnection,
}

impl Pair {
    async fn start() -> Self {
        let old = Server::start();
        let installation = Installation::on(Database::migrated_on(old.socket_dir()).await).await;
        let new = Standby::of(&old);
        let database = &installation.database;
        wait_for_standbys(database).await;
        eventually("commits wait for the standby", async || {
            let asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (database.count(asked).await == 1).then_some(())
        })
        .await;
        let mut sealer = database.connect().await;
        run(&mut sealer, "SELECT pg_advisory_lock(x'746f6b656e640002'::bigint)").await;
        Self { old, new, installation, _sealer: sealer }
    }

    /// Starts a replica that reaches the primary through a proxy, and writes nothing in the background.
    async fn replica(&self, bounds: Bounds) -> (Proxy, Replica) {
        let (proxy, config) = self.config(bounds).await;
        (proxy, self.installation.serve(config).await)
    }

    /// Returns how such a replica is run.
    async fn config(&self, bounds: Bounds) -> (Proxy, ServerConfig) {
        let proxy = Proxy::to(self.old.socket_dir(), LinkState::Open).await;
        let mut config = self.installation.config();
        config.database = proxy.lead(&config.database);
        config.database_connections = 40;
        config.bounds = bounds;
        config.last_use_interval = Duration::from_hours(1);
        config.retention.interval = Duration::from_hours(1);
        (proxy, config)
    }

    /// Returns the database on the standby.
    fn copy(&self) -> Database {
        Database::named(self.new.socket_dir(), self.installation.database.name())
    }

    /// Loses the primary for good, and promotes the standby, which may have been down.
    fn fail_over(&mut self) {
        self.old.kill();
        self.new.promote();
    }

    async fn waiting(&self) -> i64 {
        self.installation.database.count(format!("SELECT count(*) {WAITING}")).await
    }

    /// Terminates the connections that wait for the standby, as an operator may, and those that begin
    /// to wait meanwhile.
    async fn terminate_waiters(&self) {
        let end = format!("SELECT count(pg_terminate_backend(pid)) {WAITING}");
        eventually("nobody waits", async || {
            self.installation.database.count(end.as_str()).await;
            (self.waiting().await == 0).then_some(())
        })
        .await;
    }
}

/// Makes the server's commits wait for a standby.
async fn wait_for_standbys(database: &Database) {
    database.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    database.execute("SELECT pg_reload_conf()").await;
}

const SECOND: Bounds = Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::ZERO };

/// Requests a change, and cancels the call when its COMMIT waits for the standby.
async fn left_waiting(pair: &Pair, root: &Client, change: &Change, what: &str) {
    let before = pair.waiting().await;
    let asked = tokio::spawn(change.clone().ask(root.clone()));
    eventually("it waits for the standby", async || {
        assert!(!asked.is_finished(), "{what} was answered: {change:?}");
        (pair.waiting().await > before).then_some(())
    })
    .await;
    asked.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_acknowledges_nothing_that_no_standby_has_confirmed() {
    let mut pair = Pair::start().await;
    let (proxy, replica) = pair.replica(SECOND).await;
    let mut root = replica.root();
    let changes = Change::each(&mut root, replica.http).await;
    all_are_covered(&changes);

    pair.new.kill();
    for change in &changes {
        left_waiting(&pair, &root, change, "the first try").await;
    }
    pair.terminate_waiters().await;
    for change in &changes {
        left_waiting(&pair, &root, change, "a repeat").await;
        pair.terminate_waiters().await;
    }

    // What is finally acknowledged is still there after a failover.
    pair.new.go_on();
    let mut acknowledged = Vec::new();
    for change in &changes {
        let asked = async || change.clone().ask(root.clone()).await.ok();
        acknowledged.push(eventually(&format!("acknowledged: {change:?}"), asked).await);
    }
    pair.fail_over();
    proxy.lead_to(pair.new.socket_dir());
    for (change, acknowledged) in changes.iter().zip(&acknowledged) {
        let asked = async || change.is_there(&mut root, acknowledged.as_ref()).await.ok();
        assert!(eventually("an answer", asked).await, "lost: {change:?}");
    }
}

#[tokio::test]
async fn a_retry_that_locks_nothing_waits_for_the_standby_too() {
    const ADMIN: &str = "dns:admin.example.org";
    let pair = Pair::start().await;
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority));
    let (_proxy, mut config) = pair.config(SECOND).await;
    config.tls = Some(files.load());
    let mapping = CertificateMapping {
        name: SubjectName::parse(ADMIN).unwrap(),
        scopes: [ReservedScope::Write].into_iter().collect(),
        organization_id: OrganizationId::parse("acme").unwrap(),
    };
    config.certificates = CertificateMappings::new(vec![mapping]).unwrap();
    let replica = pair.installation.launch(config);
    wait_until_serving(channel(&replica, &authority, None)).await;
    // A caller by certificate has no row that its transactions would lock.
    let mut admin = bearing(channel(&replica, &authority, Some(&authority.good(&[ADMIN]))), &[]);
    let user_id = "leaver".to_owned();
    created(&mut admin, CreateTokenRequest { user_id, ..ordinary() }).await;
    let rotate = rotation(&made(&mut admin).await.id);
    let changes = [
        Change::RevokeUser("leaver"),
        Change::Create(Box::new(CreateTokenRequest { request_id: new_request_id(), ..ordinary() })),
        Change::Rotate(RotateTokenRequest { request_id: new_request_id(), ..rotate }),
    ];

    pair.new.kill();
    for what in ["the first try", "a repeat"] {
        for change in &changes {
            left_waiting(&pair, &admin, change, what).await;
        }
        pair.terminate_waiters().await;
    }
}

#[tokio::test]
async fn a_wait_that_is_cancelled_acknowledges_nothing() {
    let pair = Pair::start().await;
    let database = url(&pair.installation.database);
    let process = Process::start(&pair.installation, &database, &["--http-listen", "127.0.0.1:0"]).await;
    let mut root = process.root();
    let token = made(&mut root).await;
    let request = CreateTokenRequest { request_id: new_request_id(), ..ordinary() };
    let over_http = OverHttp::new(&mut root, process.http().await).await;
    let changes =
        [Change::Revoke(token), Change::Create(Box::new(request)), Change::RevokeOverHttp(over_http)];

    pair.new.kill();
    // The first try, then a retry.
    for change in changes.iter().chain(&changes) {
        let asked = tokio::spawn(change.clone().ask(root.clone()));
        eventually("it waits for the standby", async || (pair.waiting().await > 0).then_some(())).await;
        let cancel = format!("SELECT count(pg_cancel_backend(pid)) {WAITING}");
        pair.installation.database.count(cancel).await;
        let answer = in_time("the call", asked).await.unwrap();
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable, "{change:?}");
    }
}

#[tokio::test]
async fn without_a_standby_verdicts_continue_from_cache_and_database() {
    let mut pair = Pair::start().await;
    let (proxy, replica) = pair.replica(SECOND).await;
    let mut root = replica.root();
    let kept = cached(&mut root).await;

    pair.new.kill();
    let renewal = "SELECT (extract(epoch FROM max(renew_time)) * 1000)::bigint FROM replicas";
    let before = pair.installation.database.count(renewal).await;
    eventually("the replica's row is renewed", async || {
        assert_eq!(full(&mut root, &kept).await.unwrap().verdict(), Verdict::Valid);
        (pair.installation.database.count(renewal).await > before).then_some(())
    })
    .await;
    stays_cached(&mut root, &pair.installation.database, &kept).await;

    // Two nodes are left, the leader fails, and the new leader waits for a standby that does not exist.
    pair.old.kill();
    pair.new.go_on();
    pair.new.promote();
    wait_for_standbys(&pair.copy()).await;
    proxy.lead_to(pair.new.socket_dir());

    let answer = eventually("the new leader is read", async || full(&mut root, &kept).await.ok()).await;
    assert_eq!(answer.verdict(), Verdict::Valid);
    in_cache(&mut root, &kept).await;
    stays_cached(&mut root, &pair.copy(), &kept).await;
    assert_unavailable(&root.revoke_token(revocation(&kept.id, "")).await.unwrap_err());
}

/// A protection of the replicas' rows that a trigger of the test disables, on the primary and so on
/// its standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// The first commit of a row waits for a standby.
    Registration,
    /// A server treats rows as if they had been renewed when it started.
    Beginning,
}

impl Guard {
    async fn take_out(self, database: &Database) {
        let (table, act) = match self {
            Self::Registration => ("replicas", "PERFORM set_config('synchronous_commit', 'local', true)"),
            Self::Beginning => ("server_mark", "NEW.mark_time = now() - interval '1 day'"),
        };
        let function = format!(
            "CREATE FUNCTION taken_out() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {act}; RETURN NEW; END$$"
        );
        database.execute(function).await;
        let trigger = format!(
            "CREATE TRIGGER taken_out BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION taken_out()"
        );
        database.execute(trigger).await;
    }
}

const LONG_GRACE: Bounds = Bounds { outage_grace: Duration::from_mins(2), ..SECOND };

/// Starts a replica while no standby receives its row, and loses the primary. Returns the replica's
/// verdict on a token once the token's revocation by the new leader is in effect.
async fn said_by_a_replica_that_nobody_knows(taken_out: Option<Guard>) -> Result<Verdict, Status> {
    let mut pair = Pair::start().await;
    let (proxy, known) = pair.replica(SECOND).await;
    let kept = made(&mut known.root()).await;
    if let Some(guard) = taken_out {
        guard.take_out(&pair.installation.database).await;
    }

    pair.new.kill();
    let (severed, unknown) = pair.replica(LONG_GRACE).await;
    if taken_out.is_some() {
        in_cache(&mut unknown.root(), &kept).await;
    } else {
        for _ in 0..20 {
            let answer = unknown.root().verify(question(&kept.secret, &[])).await.unwrap().into_inner();
            assert_eq!(answer.verdict(), Verdict::Valid);
        }
    }
    severed.set(LinkState::Cut);
    pair.old.kill();
    pair.new.go_on();
    pair.new.promote();
    proxy.lead_to(pair.new.socket_dir());

    let revocation = eventually("the new leader revokes", async || {
        Some(known.root().revoke_token(revocation(&kept.id, "")).await.ok()?.into_inner())
    })
    .await;
    let effective = nanos(revocation.effective_time.as_ref());
    eventually("the revocation is in effect", async || (super::witness::wall() > effective).then_some(()))
        .await;
    Ok(unknown.root().verify(question(&kept.secret, &[])).await?.into_inner().verdict())
}

#[tokio::test]
async fn a_replica_registered_only_on_the_lost_primary_does_not_use_its_cache() {
    assert_unavailable(&said_by_a_replica_that_nobody_knows(None).await.unwrap_err());
}

#[tokio::test]
async fn without_waiting_for_a_standby_a_replica_would_admit_revoked_tokens() {
    let output = said_by_a_replica_that_nobody_knows(Some(Guard::Registration)).await;
    assert_eq!(output.unwrap(), Verdict::Valid);
}

/// Disconnects a replica with a long grace period, and promotes a standby whose row for that
/// replica is an hour old. Returns in how many nanoseconds a revocation by the new leader is to be
/// in effect, and the replica's verdict on the token.
async fn promised_beside_a_replica_that_lasts(taken_out: Option<Guard>) -> (i128, Verdict) {
    let mut pair = Pair::start().await;
    if let Some(guard) = taken_out {
        guard.take_out(&pair.installation.database).await;
    }
    let (proxy, second) = pair.replica(SECOND).await;
    let kept = made(&mut second.root()).await;
    // It starts without a standby, and answers from its cache once a standby has received its row.
    pair.new.kill();
    let (severed, lasting) = pair.replica(LONG_GRACE).await;
    pair.new.go_on();
    in_cache(&mut lasting.root(), &kept).await;

    severed.set(LinkState::Cut);
    pair.fail_over();
    // As if the standby had been disconnected for the last hour.
    let copy = pair.copy();
    copy.execute("UPDATE replicas SET renew_time = renew_time - interval '1 hour'").await;
    proxy.lead_to(pair.new.socket_dir());

    becomes(&mut second.root(), &kept, Verdict::Valid).await;
    let done =
        eventually("the new leader revokes", async || Some(revoked(&mut second.root(), &kept.id, "").await))
            .await;
    let promised = nanos(done.effective_time.as_ref()) - super::witness::wall();
    let answers_stale = lasting.root().verify(question(&kept.secret, &[])).await.unwrap().into_inner();
    (promised, answers_stale.verdict())
}

#[tokio::test]
async fn a_new_leader_counts_replicas_whose_renewals_it_has_not_received() {
    let (promised, output) = promised_beside_a_replica_that_lasts(None).await;
    assert!(promised > 110_000_000_000, "in effect in {promised} ns, which the other replica outlives");
    assert_eq!(output, Verdict::Valid);
}

#[tokio::test]
async fn without_counting_them_a_new_leader_would_promise_too_early() {
    let (promised, output) = promised_beside_a_replica_that_lasts(Some(Guard::Beginning)).await;
    assert!(promised < 10_000_000_000, "in effect in {promised} ns");
    assert_eq!(output, Verdict::Valid);
}
