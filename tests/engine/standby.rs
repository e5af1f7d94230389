//! A primary whose commits wait for a standby, and the standby is gone: nothing is acknowledged that a failover could
//! lose, by no repeat either, and reads go on where they are right.

use std::time::Duration;

use sqlx::PgConnection;
use tokend::grpc::proto::{
    Consistency, CreateTokenRequest, DisableTokenRequest, EnableTokenRequest, EnforcePolicyRequest, Policy,
    RotateTokenRequest, UpdatePolicyRequest, Verdict, VerifyRequest, VerifyResponse,
};
use tokend::verify::Bounds;
use tonic::{Code, Status};

use super::fleet::{Process, url};
use super::setup::{Made, assert_unavailable, becomes, cached, in_cache, made, run, stays_cached};
use crate::support::client::{
    Client, created, leaver, nanos, new_request_id, ordinary, question, revocation, revoked, rotation,
};
use crate::support::database::Database;
use crate::support::proxy::{Proxy, Way};
use crate::support::replica::{Installation, Replica};
use crate::support::server::{Server, Standby};
use crate::support::{eventually, in_time};

/// The connections whose COMMIT waits for a standby.
const WAITING: &str = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";

struct Pair {
    old: Server,
    new: Standby,
    installation: Installation,
    /// Keeps the audit log from being sealed: those commits would wait too.
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

    /// Starts a replica that reaches the primary through a proxy, and writes down nothing by itself.
    async fn replica(&self, bounds: Bounds) -> (Proxy, Replica) {
        let proxy = Proxy::to(self.old.socket_dir(), Way::Open).await;
        let mut config = self.installation.config();
        config.database = proxy.lead(&config.database);
        config.database_connections = 32;
        config.bounds = bounds;
        config.last_use_interval = Duration::from_hours(1);
        config.retention.interval = Duration::from_hours(1);
        (proxy, self.installation.serve(config).await)
    }

    /// Returns the database on the standby.
    fn copy(&self) -> Database {
        Database::named(self.new.socket_dir(), self.installation.database.name())
    }

    /// Loses the primary for good, and makes the standby, which may have been down, a server of its own.
    fn fail_over(&mut self) {
        self.old.kill();
        self.new.promote();
    }

    async fn waiting(&self) -> i64 {
        self.installation.database.count(format!("SELECT count(*) {WAITING}")).await
    }

    /// Ends whoever waits for the standby, as an operator may.
    async fn terminate_waiters(&self) {
        let end = format!("SELECT count(pg_terminate_backend(pid)) {WAITING}");
        self.installation.database.count(end).await;
        eventually("nobody waits", async || (self.waiting().await == 0).then_some(())).await;
    }
}

/// Has the server's commits wait for a standby.
async fn wait_for_standbys(database: &Database) {
    database.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    database.execute("SELECT pg_reload_conf()").await;
}

const SECOND: Bounds = Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::ZERO };

/// What an answer may acknowledge.
#[derive(Debug, Clone)]
enum Change {
    Revoke(Made),
    RevokeBySecret(Made),
    RevokeUser(&'static str),
    Disable(Made),
    Enable(Made),
    Create(CreateTokenRequest),
    Rotate(RotateTokenRequest),
    UpdatePolicy(UpdatePolicyRequest),
    EnforcePolicy(EnforcePolicyRequest),
}

impl Change {
    /// Returns one of each kind.
    async fn each(root: &mut Client) -> Vec<Self> {
        let disabled = made(root).await;
        root.disable_token(DisableTokenRequest { token_id: disabled.id.clone() }).await.unwrap();
        for user_id in ["leaver", "gone"] {
            created(root, CreateTokenRequest { user_id: user_id.to_owned(), ..ordinary() }).await;
        }
        root.revoke_user_tokens(leaver("gone")).await.unwrap();
        let expiring = |organization_id: &str| {
            let policy = Some(Policy { expiration_required: true, ..Default::default() });
            UpdatePolicyRequest { organization_id: organization_id.to_owned(), policy }
        };
        let organization_id = "enforced".to_owned();
        let endless = CreateTokenRequest { organization_id: organization_id.clone(), ..ordinary() };
        created(root, endless).await;
        root.update_policy(expiring("enforced")).await.unwrap();
        root.update_policy(expiring("set")).await.unwrap();
        let rotate = rotation(&made(root).await.id);
        vec![
            Self::Revoke(made(root).await),
            Self::RevokeBySecret(made(root).await),
            Self::RevokeUser("leaver"),
            // Nothing is left to revoke from the beginning.
            Self::RevokeUser("gone"),
            Self::Disable(made(root).await),
            Self::Enable(disabled),
            Self::Create(CreateTokenRequest { request_id: new_request_id(), ..ordinary() }),
            Self::Rotate(RotateTokenRequest { request_id: new_request_id(), ..rotate }),
            Self::UpdatePolicy(expiring("set")),
            Self::EnforcePolicy(EnforcePolicyRequest { organization_id, ..Default::default() }),
        ]
    }

    async fn ask(self, mut root: Client) -> Result<(), Status> {
        match self {
            Self::Revoke(token) => root.revoke_token(revocation(&token.id, "")).await.map(drop),
            Self::RevokeBySecret(token) => {
                let mut request = revocation("", "");
                request.target =
                    Some(tokend::grpc::proto::revoke_token_request::Target::Secret(token.secret));
                root.revoke_token(request).await.map(drop)
            }
            Self::RevokeUser(user_id) => root.revoke_user_tokens(leaver(user_id)).await.map(drop),
            Self::Disable(token) => {
                root.disable_token(DisableTokenRequest { token_id: token.id }).await.map(drop)
            }
            Self::Enable(token) => {
                root.enable_token(EnableTokenRequest { token_id: token.id }).await.map(drop)
            }
            Self::Create(request) => root.create_token(request).await.map(drop),
            Self::Rotate(request) => root.rotate_token(request).await.map(drop),
            Self::UpdatePolicy(request) => root.update_policy(request).await.map(drop),
            Self::EnforcePolicy(request) => root.enforce_policy(request).await.map(drop),
        }
    }
}

/// Asks for a change until its COMMIT waits for the standby, and goes away then.
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

async fn full(root: &mut Client, token: &Made) -> Result<VerifyResponse, Status> {
    let full = VerifyRequest { consistency: Consistency::Full.into(), ..question(&token.secret, &[]) };
    Ok(root.verify(full).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_acknowledges_no_more_than_a_standby_has_confirmed() {
    let mut pair = Pair::start().await;
    let (proxy, replica) = pair.replica(SECOND).await;
    let mut root = replica.root();
    let changes = Change::each(&mut root).await;

    pair.new.kill();
    for change in &changes {
        left_waiting(&pair, &root, change, "the first try").await;
    }
    pair.terminate_waiters().await;
    for change in &changes {
        left_waiting(&pair, &root, change, "a repeat").await;
        pair.terminate_waiters().await;
    }

    // What is acknowledged at last is there after a failover.
    pair.new.go_on();
    for change in &changes {
        eventually(&format!("acknowledged: {change:?}"), async || {
            change.clone().ask(root.clone()).await.ok()
        })
        .await;
    }
    pair.fail_over();
    proxy.lead_to(pair.new.socket_dir());
    for change in &changes {
        let (token, verdict) = match change {
            Change::Revoke(token) | Change::RevokeBySecret(token) => (token, Verdict::Revoked),
            Change::Disable(token) => (token, Verdict::Disabled),
            Change::Enable(token) => (token, Verdict::Valid),
            _ => continue,
        };
        let answer = eventually("an answer", async || full(&mut root, token).await.ok()).await;
        assert_eq!(answer.verdict(), verdict, "{change:?}");
    }
}

#[tokio::test]
async fn a_wait_that_is_cancelled_acknowledges_nothing() {
    let pair = Pair::start().await;
    let process = Process::start(&pair.installation, &url(&pair.installation.database), &[]).await;
    let mut root = process.root();
    let token = made(&mut root).await;
    let request = CreateTokenRequest { request_id: new_request_id(), ..ordinary() };
    let changes = [Change::Revoke(token), Change::Create(request)];

    pair.new.kill();
    // The first try, then a repeat.
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
async fn without_a_standby_verdicts_are_given_from_cache_and_database_for_as_long_as_that_lasts() {
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

    // Two nodes are left, the leader fails, and the new one waits for a standby that is not there.
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

#[tokio::test]
async fn a_replica_that_only_the_lost_primary_knew_of_answers_nothing_from_its_cache() {
    let mut pair = Pair::start().await;
    let (proxy, known) = pair.replica(SECOND).await;
    let kept = made(&mut known.root()).await;

    // It begins while no standby can hear of it, and would live on for long.
    pair.new.kill();
    let grace = Bounds { outage_grace: Duration::from_mins(2), ..SECOND };
    let (severed, unknown) = pair.replica(grace).await;
    for _ in 0..20 {
        let answer = unknown.root().verify(question(&kept.secret, &[])).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Valid);
    }
    severed.turn(Way::Cut);
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
    assert_unavailable(&unknown.root().verify(question(&kept.secret, &[])).await.unwrap_err());
}

#[tokio::test]
async fn a_new_leader_reckons_with_replicas_whose_renewals_it_has_not_heard_of() {
    let mut pair = Pair::start().await;
    let (proxy, heard) = pair.replica(SECOND).await;
    let kept = made(&mut heard.root()).await;
    // It begins without a standby, and answers from its cache once one has heard of it.
    pair.new.kill();
    let grace = Bounds { outage_grace: Duration::from_mins(2), ..SECOND };
    let (severed, lasting) = pair.replica(grace).await;
    pair.new.go_on();
    in_cache(&mut lasting.root(), &kept).await;

    severed.turn(Way::Cut);
    pair.fail_over();
    // As if the standby had been away for the last hour.
    let copy = pair.copy();
    copy.execute("UPDATE replicas SET renew_time = renew_time - interval '1 hour'").await;
    proxy.lead_to(pair.new.socket_dir());

    becomes(&mut heard.root(), &kept, Verdict::Valid).await;
    let done =
        eventually("the new leader revokes", async || Some(revoked(&mut heard.root(), &kept.id, "").await))
            .await;
    let promised = nanos(done.effective_time.as_ref()) - super::witness::wall();
    assert!(promised > 110_000_000_000, "in effect in {promised} ns, which the other replica outlives");
    let stands_in = lasting.root().verify(question(&kept.secret, &[])).await.unwrap().into_inner();
    assert_eq!(stands_in.verdict(), Verdict::Valid);
}
