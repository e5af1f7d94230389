//! Calls are judged by the time after the last lock was acquired: what expired during the wait has
//! expired.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    AddCreditsRequest, CreateConsoleLinkRequest, CreatePortalSessionRequest, DeletePlanRequest,
    DisableTokenRequest, EnableTokenRequest, EnforcePolicyRequest, Policy, RevokePortalSessionsRequest,
    RevokeTokenRequest, UpdatePolicyRequest, UpdateTokenRequest, update_token_request,
};
use tonic::{Code, Status};

use super::got;
use crate::support::client::{
    Client, created, created_with, leaver, mask, nanos, new_request_id, ordinary, renaming, rotation,
};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::plans::{plan, rate};
use crate::support::replica::Replica;
use crate::support::status::{check, refused};

/// Another transaction that has locked rows.
struct Holder {
    connection: PgConnection,
    database: Database,
}

impl Holder {
    /// Locks the rows of a query.
    async fn of(database: &Database, query: &str) -> Self {
        let mut connection = database.connect().await;
        connection.execute(AssertSqlSafe(format!("BEGIN; {query} FOR UPDATE"))).await.unwrap();
        Self { connection, database: database.clone() }
    }

    async fn of_token(database: &Database, id: &str) -> Self {
        Self::of(database, &format!("SELECT FROM tokens WHERE id = '{}'", uuid(id))).await
    }

    /// Waits until this many calls wait for locks.
    async fn waited_for(&self, calls: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock'";
        eventually("calls wait", async || (self.database.count(waiting).await >= calls).then_some(())).await;
    }

    /// Makes a token expire now, and releases the waiting calls after that. Returns the time in
    /// microseconds.
    async fn end(mut self, id: &str) -> i64 {
        let end = format!(
            "UPDATE tokens SET expire_time = clock_timestamp() + interval '1 ms' WHERE id = '{}'",
            uuid(id)
        );
        self.connection.execute(AssertSqlSafe(end)).await.unwrap();
        self.let_go().await
    }

    async fn let_go(mut self) -> i64 {
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM pg_sleep(0.01)";
        let now = sqlx::query_scalar(now).fetch_one(&mut self.connection).await.unwrap();
        self.connection.execute("COMMIT").await.unwrap();
        now
    }
}

fn uuid(id: &str) -> uuid::Uuid {
    uuid::Uuid::from_bytes(tokend::secret::TokenId::parse(id).unwrap().to_bytes())
}

fn reviving(id: &str) -> UpdateTokenRequest {
    UpdateTokenRequest {
        token_id: id.to_owned(),
        expiration: Some(update_token_request::Expiration::NoExpiration(true)),
        update_mask: mask(&["expiration"]),
        ..Default::default()
    }
}

/// Calls an RPC that changes something, on the token with this id if it takes one.
async fn act(rpc: &str, client: &mut Client, id: &str) -> Result<(), Status> {
    let token_id = id.to_owned();
    let revoke = RevokeTokenRequest { target: Some(Target::TokenId(token_id.clone())), ..Default::default() };
    match rpc {
        "CreateToken" => client.create_token(ordinary()).await.map(|_| ()),
        "UpdateToken" => client.update_token(renaming(id)).await.map(|_| ()),
        "RotateToken" => client.rotate_token(rotation(id)).await.map(|_| ()),
        "RevokeToken" => client.revoke_token(revoke).await.map(|_| ()),
        "RevokeUserTokens" => client.revoke_user_tokens(leaver("ada")).await.map(|_| ()),
        "DisableToken" => {
            client.disable_token(DisableTokenRequest { token_id, ..Default::default() }).await.map(|_| ())
        }
        "EnableToken" => client.enable_token(EnableTokenRequest { token_id }).await.map(|_| ()),
        "UpdatePolicy" => {
            let request = UpdatePolicyRequest { policy: Some(Policy::default()), ..Default::default() };
            client.update_policy(request).await.map(|_| ())
        }
        "CreatePortalSession" => {
            let request = CreatePortalSessionRequest { user_id: "ada".to_owned(), ..Default::default() };
            client.create_portal_session(request).await.map(|_| ())
        }
        "RevokePortalSessions" => {
            let request = RevokePortalSessionsRequest { user_id: "ada".to_owned(), ..Default::default() };
            client.revoke_portal_sessions(request).await.map(|_| ())
        }
        "SetPlan" => client.set_plan(plan("default", "kept", vec![rate("reads", 10)])).await.map(|_| ()),
        "DeletePlan" => {
            let name = "free".to_owned();
            client.delete_plan(DeletePlanRequest { name, ..Default::default() }).await.map(|_| ())
        }
        "AddCredits" => {
            let (plan, limit, request_id) = ("free".to_owned(), "money".to_owned(), new_request_id());
            let request = AddCreditsRequest { plan, limit, request_id, amount: 1, ..Default::default() };
            client.add_credits(request).await.map(|_| ())
        }
        "CreateConsoleLink" => client.create_console_link(CreateConsoleLinkRequest {}).await.map(|_| ()),
        "EnforcePolicy" => client.enforce_policy(EnforcePolicyRequest::default()).await.map(|_| ()),
        other => panic!("{other}"),
    }
}

const RPCS: [&str; 15] = [
    "CreateToken",
    "UpdateToken",
    "RotateToken",
    "RevokeToken",
    "RevokeUserTokens",
    "DisableToken",
    "EnableToken",
    "UpdatePolicy",
    "EnforcePolicy",
    "CreateConsoleLink",
    "CreatePortalSession",
    "RevokePortalSessions",
    "SetPlan",
    "DeletePlan",
    "AddCredits",
];

#[tokio::test]
async fn no_caller_acts_after_its_expiration_after_any_wait() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    for rpc in RPCS {
        let made = created_with(&mut root, "", &["tokend:root"]).await;
        let caller_id = made.token.unwrap().id;
        let mut caller = replica.client(&made.secret);
        let id = created(&mut root, ordinary()).await.token.unwrap().id;
        // The caller's own row, which every change locks.
        let holder = Holder::of_token(database, &caller_id).await;

        let acting = tokio::spawn(async move { act(rpc, &mut caller, &id).await });
        holder.waited_for(1).await;
        holder.end(&caller_id).await;

        let Err(status) = acting.await.unwrap() else { panic!("{rpc} was done for a caller that had ended") };
        check(&status, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
    }
}

#[tokio::test]
async fn no_caller_acts_after_its_expiration_after_waiting_for_a_token() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let short =
        ["UpdateToken", "RotateToken", "RevokeToken", "RevokeUserTokens", "DisableToken", "EnableToken"];
    // The last is longer than the tolerance for readings of the clock.
    for (rpc, seconds) in short.map(|rpc| (rpc, 1)).into_iter().chain([("RevokeToken", 3)]) {
        let made = created_with(&mut root, "", &["tokend:root"]).await;
        let caller_id = made.token.unwrap().id;
        let mut caller = replica.client(&made.secret);
        let id = created(&mut root, ordinary()).await.token.unwrap().id;
        // Short enough to end soon, long enough for the call to reach the lock.
        let ends = format!(
            "UPDATE tokens SET expire_time = clock_timestamp() + interval '{seconds} s' WHERE id = '{}'",
            uuid(&caller_id)
        );
        database.execute(ends).await;
        let holder = Holder::of_token(database, &id).await;

        let target = id.clone();
        let acting = tokio::spawn(async move { act(rpc, &mut caller, &target).await });
        let over = format!(
            "SELECT count(*) FROM tokens WHERE id = '{}' AND expire_time < clock_timestamp()",
            uuid(&caller_id)
        );
        eventually("the caller ends", async || (database.count(&*over).await == 1).then_some(())).await;
        holder.let_go().await;

        let Err(status) = acting.await.unwrap() else { panic!("{rpc} was done for a caller that had ended") };
        check(&status, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
        let touched = format!(
            "SELECT count(*) FROM token_events WHERE token_id = '{}' AND kind <> 'created'",
            uuid(&id)
        );
        assert_eq!(database.count(touched).await, 0, "{rpc}");
    }
}

#[tokio::test]
async fn a_token_that_expires_during_a_lock_wait_is_neither_revived_nor_rotated() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    for rpc in ["UpdateToken", "RotateToken"] {
        let id = created(&mut root, ordinary()).await.token.unwrap().id;
        let holder = Holder::of_token(database, &id).await;

        let (mut acting, target) = (replica.root(), id.clone());
        let acting = tokio::spawn(async move {
            match rpc {
                "UpdateToken" => acting.update_token(reviving(&target)).await.map(|_| ()),
                _ => acting.rotate_token(rotation(&target)).await.map(|_| ()),
            }
        });
        holder.waited_for(1).await;
        holder.end(&id).await;

        let Err(status) = acting.await.unwrap() else { panic!("{rpc} was done to a token that had ended") };
        check(&status, Code::FailedPrecondition, "TOKEN_EXPIRED");
    }
}

#[tokio::test]
async fn a_quota_slot_freed_during_a_lock_wait_is_used_once() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let policy = Policy { most_active_tokens_per_user: 1, ..Default::default() };
    root.update_policy(UpdatePolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let holder = Holder::of(database, "SELECT FROM policies").await;

    let (mut reviver, target) = (replica.root(), id.clone());
    let reviving = tokio::spawn(async move { reviver.update_token(reviving(&target)).await });
    let mut creator = replica.root();
    let creating = tokio::spawn(async move { creator.create_token(ordinary()).await });
    holder.waited_for(2).await;
    holder.end(&id).await;

    refused(reviving.await.unwrap(), Code::FailedPrecondition, "TOKEN_EXPIRED");
    creating.await.unwrap().unwrap();
    let active = "SELECT count(*) FROM tokens WHERE user_id = 'ada' AND revoke_time IS NULL
        AND (expire_time IS NULL OR expire_time > now())";
    assert_eq!(database.count(active).await, 1);
}

#[tokio::test]
async fn tokens_that_end_while_enforcement_waits_for_a_lock_do_not_count() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(created(&mut root, ordinary()).await.token.unwrap().id);
    }
    let policy = Policy { most_active_tokens_per_user: 2, ..Default::default() };
    root.update_policy(UpdatePolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
    let holder = Holder::of_token(database, &ids[0]).await;

    let mut acting = replica.root();
    let enforcing = tokio::spawn(async move { acting.enforce_policy(EnforcePolicyRequest::default()).await });
    holder.waited_for(1).await;
    holder.end(&ids[2]).await;

    assert_eq!(enforcing.await.unwrap().unwrap().into_inner().breaches, []);
}

#[tokio::test]
async fn a_change_has_the_time_after_the_wait() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    for rpc in ["RevokeToken", "RevokeUserTokens", "DisableToken"] {
        let id = created(&mut root, ordinary()).await.token.unwrap().id;
        let holder = Holder::of_token(database, &id).await;

        let (mut acting, target) = (replica.root(), id.clone());
        let acting = tokio::spawn(async move { act(rpc, &mut acting, &target).await });
        holder.waited_for(1).await;
        let waited = i128::from(holder.let_go().await) * 1_000;
        acting.await.unwrap().unwrap();

        let token = got(&mut root, &id).await;
        let done = token.revoke_time.or(token.disable_time);
        assert!(nanos(done.as_ref()) >= waited, "{rpc}");
        let same = format!(
            "SELECT count(*) FROM token_events JOIN tokens t ON t.id = token_id WHERE token_id = '{}'
                 AND kind IN ('revoked', 'disabled') AND event_time = coalesce(revoke_time, disable_time)",
            uuid(&id)
        );
        assert_eq!(database.count(same).await, 1, "{rpc}");
    }
}
