//! A caller acts only in its own organization, unless its scopes allow more.

use tokend::api::proto::{
    AddCreditsRequest, CheckPolicyRequest, CreatePortalSessionRequest, CreateTokenRequest, DeletePlanRequest,
    DisableTokenRequest, DisableUserRequest, EnableTokenRequest, EnableUserRequest, EnforcePolicyRequest,
    GetPlanRequest, GetPolicyRequest, GetTokenLimitsRequest, GetTokenRequest, GetUsageRequest,
    ListPlansRequest, ListTokenEventsRequest, ListTokensRequest, ListUsersRequest,
    RevokePortalSessionsRequest, RevokeUserTokensRequest, SetPlanRequest, UpdatePolicyRequest, Verdict,
    VerifyStreamRequest, WatchTokensRequest,
};
use tonic::{Code, Status};

use super::methods::methods;
use crate::support::client::{
    Client, created, created_with, leaver, new_request_id, ordinary, question, renaming, revocation,
    rotation, unknown_id, verified,
};
use crate::support::plans::rate;
use crate::support::replica::Replica;
use crate::support::status::refused;

const ALL_BUT_ROOT: [&str; 3] = ["tokend:verify", "tokend:read", "tokend:write"];

/// The response to a caller that accesses another organization.
enum Barrier {
    Refused(Code, &'static str),
    NotFoundVerdict,
    /// It is about the caller's own token alone.
    Nothing,
}

fn in_organization(organization_id: &str) -> ListTokensRequest {
    ListTokensRequest { organization_id: organization_id.to_owned(), ..Default::default() }
}

async fn organizations(client: &mut Client) -> Vec<String> {
    let page = client.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    let mut found: Vec<_> = page.tokens.into_iter().map(|token| token.organization_id).collect();
    found.sort();
    found.dedup();
    found
}

/// Accesses the users of another organization by an RPC.
async fn reach_users(caller: &mut Client, method: &str) -> Result<(), Status> {
    let (organization_id, user_id) = ("other".to_owned(), "ada".to_owned());
    match method {
        "DisableUser" => {
            let request = DisableUserRequest { organization_id, user_id, ..Default::default() };
            caller.disable_user(request).await.map(drop)
        }
        "EnableUser" => {
            let request = EnableUserRequest { organization_id, user_id, ..Default::default() };
            caller.enable_user(request).await.map(drop)
        }
        _ => {
            let request = ListUsersRequest { organization_id, ..Default::default() };
            caller.list_users(request).await.map(drop)
        }
    }
}

/// Accesses the plans of another organization by an RPC.
async fn reach_plans(caller: &mut Client, method: &str) -> Result<(), Status> {
    let (organization_id, name) = ("other".to_owned(), "free".to_owned());
    match method {
        "SetPlan" => {
            let limits = vec![rate("reads", 10)];
            caller.set_plan(SetPlanRequest { organization_id, name, limits }).await.map(drop)
        }
        "GetPlan" => caller.get_plan(GetPlanRequest { organization_id, name }).await.map(drop),
        "AddCredits" => {
            let request = AddCreditsRequest {
                organization_id,
                plan: name.clone(),
                limit: name,
                amount: 1,
                request_id: new_request_id(),
                ..Default::default()
            };
            caller.add_credits(request).await.map(drop)
        }
        "DeletePlan" => caller.delete_plan(DeletePlanRequest { organization_id, name }).await.map(drop),
        _ => {
            let request = ListPlansRequest { organization_id, ..Default::default() };
            caller.list_plans(request).await.map(drop)
        }
    }
}

/// Accesses the token of another organization by an RPC.
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn reach(caller: &mut Client, method: &str, id: &str, secret: &str) -> (Result<(), Status>, Barrier) {
    let forbidden = Barrier::Refused(Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
    match method {
        "CreateToken" => {
            let request = CreateTokenRequest { organization_id: "other".to_owned(), ..ordinary() };
            (caller.create_token(request).await.map(drop), forbidden)
        }
        "GetToken" => (
            caller.get_token(GetTokenRequest { token_id: id.to_owned() }).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "GetTokenLimits" => (
            caller.get_token_limits(GetTokenLimitsRequest { token_id: id.to_owned() }).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "ListTokens" => (caller.list_tokens(in_organization("other")).await.map(drop), forbidden),
        "UpdateToken" => (
            caller.update_token(renaming(id)).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "RotateToken" => (
            caller.rotate_token(rotation(id)).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "RevokeUserTokens" => {
            let request = RevokeUserTokensRequest { organization_id: "other".to_owned(), ..leaver("ada") };
            (caller.revoke_user_tokens(request).await.map(drop), forbidden)
        }
        "DisableUser" | "EnableUser" | "ListUsers" => (reach_users(caller, method).await, forbidden),
        "RevokeToken" => (
            caller.revoke_token(revocation(id, "")).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "DisableToken" => (
            caller
                .disable_token(DisableTokenRequest { token_id: id.to_owned(), ..Default::default() })
                .await
                .map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "EnableToken" => (
            caller.enable_token(EnableTokenRequest { token_id: id.to_owned() }).await.map(drop),
            Barrier::Refused(Code::NotFound, "TOKEN_NOT_FOUND"),
        ),
        "Verify" => {
            let answer = verified(caller, secret, &["a"]).await;
            assert_eq!((answer.verdict(), answer.token), (Verdict::NotFound, None));
            assert_eq!(answer.missing_scopes, [""; 0]);
            (Ok(()), Barrier::NotFoundVerdict)
        }
        "VerifyStream" => {
            let asked = VerifyStreamRequest { request: Some(question(secret, &["a"])) };
            let mut answers = caller.verify_stream(tokio_stream::once(asked)).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap().response.unwrap();
            assert_eq!((answer.verdict(), answer.token), (Verdict::NotFound, None));
            (Ok(()), Barrier::NotFoundVerdict)
        }
        "WatchTokens" => {
            let request = WatchTokensRequest { organization_id: "other".to_owned(), ..Default::default() };
            (caller.watch_tokens(request).await.map(drop), forbidden)
        }
        "ListTokenEvents" => {
            let request =
                ListTokenEventsRequest { organization_id: "other".to_owned(), ..Default::default() };
            (caller.list_token_events(request).await.map(drop), forbidden)
        }
        "GetUsage" => {
            let request = GetUsageRequest { organization_id: "other".to_owned(), ..Default::default() };
            (caller.get_usage(request).await.map(drop), forbidden)
        }
        "GetPolicy" => {
            let request = GetPolicyRequest { organization_id: "other".to_owned() };
            (caller.get_policy(request).await.map(drop), forbidden)
        }
        "UpdatePolicy" => {
            let request = UpdatePolicyRequest { organization_id: "other".to_owned(), policy: None };
            let refusal = Barrier::Refused(Code::PermissionDenied, "SCOPE_MISSING");
            (caller.update_policy(request).await.map(drop), refusal)
        }
        "CheckPolicy" => {
            let request = CheckPolicyRequest { organization_id: "other".to_owned(), ..Default::default() };
            (caller.check_policy(request).await.map(drop), forbidden)
        }
        "EnforcePolicy" => {
            let request = EnforcePolicyRequest { organization_id: "other".to_owned(), ..Default::default() };
            let refusal = Barrier::Refused(Code::PermissionDenied, "SCOPE_MISSING");
            (caller.enforce_policy(request).await.map(drop), refusal)
        }
        "SetPlan" | "GetPlan" | "ListPlans" | "DeletePlan" | "AddCredits" => {
            (reach_plans(caller, method).await, forbidden)
        }
        "CreateConsoleLink" => (Ok(()), Barrier::Nothing),
        "CreatePortalSession" => {
            let request = CreatePortalSessionRequest {
                organization_id: "other".to_owned(),
                user_id: "ada".to_owned(),
                ..Default::default()
            };
            (caller.create_portal_session(request).await.map(drop), forbidden)
        }
        "RevokePortalSessions" => {
            let request = RevokePortalSessionsRequest {
                organization_id: "other".to_owned(),
                user_id: "ada".to_owned(),
            };
            (caller.revoke_portal_sessions(request).await.map(drop), forbidden)
        }
        unknown => panic!("say here how {unknown} is kept within an organization"),
    }
}

#[tokio::test]
async fn no_rpc_reaches_another_organization() {
    let replica = Replica::start().await;
    let other = created_with(&mut replica.root(), "other", &[]).await;
    let id = other.token.unwrap().id;
    let mut caller = replica.caller("acme", &ALL_BUT_ROOT).await;

    nothing_is_reached(&mut caller, &id, &other.secret).await;

    assert_eq!(verified(&mut replica.root(), &other.secret, &[]).await.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn nothing_is_locked_or_written_for_an_unreachable_or_missing_token() {
    let replica = Replica::start().await;
    let other = created_with(&mut replica.root(), "other", &[]).await;
    let id = other.token.unwrap().id;
    let mut caller = replica.caller("acme", &ALL_BUT_ROOT).await;
    // Rows can be read, but locking or writing one waits.
    let mut operator = replica.installation.database.connect().await;
    let lock = "BEGIN; LOCK TABLE tokens, policies, token_requests, token_events IN EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut operator).await.unwrap();

    nothing_is_reached(&mut caller, &id, &other.secret).await;

    let nobody = unknown_id().to_string();
    for outcome in [
        caller.update_token(renaming(&nobody)).await.map(drop),
        caller.rotate_token(rotation(&nobody)).await.map(drop),
        caller.revoke_token(revocation(&nobody, "")).await.map(drop),
        caller
            .disable_token(DisableTokenRequest { token_id: nobody.clone(), ..Default::default() })
            .await
            .map(drop),
        caller.enable_token(EnableTokenRequest { token_id: nobody.clone() }).await.map(drop),
    ] {
        refused(outcome.map(tonic::Response::new), Code::NotFound, "TOKEN_NOT_FOUND");
    }
}

/// Accesses another organization's token by every RPC.
async fn nothing_is_reached(caller: &mut Client, id: &str, secret: &str) {
    for method in methods() {
        match reach(caller, &method, id, secret).await {
            (outcome, Barrier::Refused(code, reason)) => {
                refused(outcome.map(tonic::Response::new), code, reason);
            }
            (outcome, Barrier::NotFoundVerdict | Barrier::Nothing) => outcome.unwrap(),
        }
    }
}

#[tokio::test]
async fn within_its_own_organization_a_caller_may_name_it_or_not() {
    let replica = Replica::start().await;
    let mut caller = replica.caller("acme", &ALL_BUT_ROOT).await;

    let made = created(&mut caller, ordinary()).await;
    let named = created_with(&mut caller, "acme", &[]).await;

    assert_eq!(made.token.as_ref().unwrap().organization_id, "acme");
    assert_eq!(caller.list_tokens(in_organization("acme")).await.unwrap().into_inner().tokens.len(), 3);
    assert_eq!(organizations(&mut caller).await, ["acme"]);
    for made in [made, named] {
        assert_eq!(verified(&mut caller, &made.secret, &[]).await.verdict(), Verdict::Valid);
        caller.revoke_token(revocation(&made.token.unwrap().id, "")).await.unwrap();
    }
}

#[tokio::test]
async fn a_root_caller_acts_everywhere_and_lists_all() {
    let replica = Replica::start().await;
    let mut root = replica.caller("acme", &["tokend:root"]).await;

    let by_default = created(&mut root, ordinary()).await.token.unwrap();
    let other = created_with(&mut root, "other", &[]).await;

    assert_eq!(by_default.organization_id, "default", "not the root token's own");
    assert_eq!(organizations(&mut root).await, ["acme", "default", "other"]);
    assert_eq!(root.list_tokens(in_organization("other")).await.unwrap().into_inner().tokens.len(), 1);
    assert_eq!(verified(&mut root, &other.secret, &[]).await.verdict(), Verdict::Valid);
    root.revoke_token(revocation(&other.token.unwrap().id, "")).await.unwrap();
}

#[tokio::test]
async fn a_gateway_may_verify_in_every_organization_and_nothing_else() {
    let replica = Replica::start().await;
    let other = created_with(&mut replica.root(), "other", &[]).await;
    let mut gateway = replica.caller("acme", &["tokend:verify:any"]).await;

    let answer = gateway.verify(question(&other.secret, &[])).await.unwrap().into_inner();

    assert_eq!((answer.verdict(), answer.token.clone()), (Verdict::Valid, other.token));
    let listed = gateway.list_tokens(in_organization("acme")).await;
    refused(listed, Code::PermissionDenied, "SCOPE_MISSING");
    let revoked = gateway.revoke_token(revocation(&answer.token.unwrap().id, "")).await;
    refused(revoked, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn verify_any_does_not_widen_other_permissions() {
    let replica = Replica::start().await;
    let other = created_with(&mut replica.root(), "other", &[]).await.token.unwrap();
    let scopes = ["tokend:verify:any", "tokend:read", "tokend:write"];
    let mut caller = replica.caller("acme", &scopes).await;

    refused(
        caller.list_tokens(in_organization("other")).await,
        Code::PermissionDenied,
        "ORGANIZATION_FORBIDDEN",
    );
    refused(caller.revoke_token(revocation(&other.id, "")).await, Code::NotFound, "TOKEN_NOT_FOUND");
}
