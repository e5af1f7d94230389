//! What the service may acknowledge for every RPC and every HTTP path that changes something, and how to check that
//! the acknowledged change is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;
use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    AddCreditsRequest, Consistency, CreateTokenRequest, DeletePlanRequest, DisableTokenRequest,
    DisableUserRequest, EnableTokenRequest, EnableUserRequest, EnforcePolicyRequest, FILE_DESCRIPTOR_SET,
    GetPlanRequest, GetPolicyRequest, GetTokenRequest, ListPlansRequest, ListTokensRequest, ListUsersRequest,
    Policy, RevokeTokenRequest, RotateTokenRequest, SetPlanRequest, Token, TokenState, UpdatePolicyRequest,
    Verdict, VerifyRequest, VerifyResponse,
};
use tonic::{Code, Status};

use super::setup::{Made, made};
use crate::support::client::{
    Client, created, leaver, new_request_id, ordinary, question, renaming, revocation, rotation,
};
use crate::support::http::post;
use crate::support::plans::{credits, plan, rate};
use crate::support::replica::SERVICE;

/// What changes something over HTTP (RFC 7009).
const REVOCATION: &str = "/oauth2/revoke";

/// A change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Revoke(Made),
    RevokeBySecret(Made),
    RevokeOverHttp(OverHttp),
    RevokeUser(&'static str),
    Disable(Made),
    Enable(Made),
    DisableUser(&'static str),
    EnableUser(&'static str),
    Update(Made),
    Create(Box<CreateTokenRequest>),
    Rotate(RotateTokenRequest),
    UpdatePolicy(UpdatePolicyRequest),
    EnforcePolicy(EnforcePolicyRequest),
    SetPlan(SetPlanRequest),
    DeletePlan(&'static str),
    AddCredits(AddCreditsRequest),
}

/// A token to be revoked over HTTP, at this address, and who asks for it.
#[derive(Debug, Clone)]
pub(crate) struct OverHttp {
    address: SocketAddr,
    caller: Made,
    token: Made,
}

impl OverHttp {
    pub(crate) async fn new(root: &mut Client, address: SocketAddr) -> Self {
        Self { address, caller: made(root).await, token: made(root).await }
    }

    async fn ask(self) -> Result<(), Status> {
        let bearer = format!("Bearer {}", self.caller.secret);
        let (headers, fields) = ([("authorization", &*bearer)], [("token", &*self.token.secret)]);
        let reply = post(self.address, REVOCATION, &headers, &fields).await;
        match reply.status {
            200 => Ok(()),
            503 => Err(Status::unavailable(reply.body)),
            _ => Err(Status::unknown(format!("{reply:?}"))),
        }
    }
}

impl Change {
    /// Returns one change of each kind, and some that have nothing to do from the start. Those over HTTP are sent to this
    /// address.
    pub(crate) async fn each(root: &mut Client, http: SocketAddr) -> Vec<Self> {
        let disabled = made(root).await;
        root.disable_token(DisableTokenRequest { token_id: disabled.id.clone(), ..Default::default() })
            .await
            .unwrap();
        for user_id in ["leaver", "gone"] {
            created(root, CreateTokenRequest { user_id: user_id.to_owned(), ..ordinary() }).await;
        }
        root.revoke_user_tokens(leaver("gone")).await.unwrap();
        for user_id in ["suspect", "suspended", "back", "here"] {
            created(root, CreateTokenRequest { user_id: user_id.to_owned(), ..ordinary() }).await;
        }
        for user_id in ["suspended", "back"] {
            root.disable_user(disabling(user_id)).await.unwrap();
        }
        let organization_id = "enforced".to_owned();
        let endless = CreateTokenRequest { organization_id: organization_id.clone(), ..ordinary() };
        created(root, endless).await;
        root.update_policy(expiring("enforced")).await.unwrap();
        let rotate = rotation(&made(root).await.id);
        root.set_plan(plan("default", "deleted", vec![rate("reads", 10)])).await.unwrap();
        root.set_plan(plan("default", "paid", vec![credits("money", 10)])).await.unwrap();
        let addition = AddCreditsRequest {
            plan: "paid".to_owned(),
            limit: "money".to_owned(),
            amount: 5,
            request_id: new_request_id(),
            ..Default::default()
        };
        vec![
            Self::Revoke(made(root).await),
            Self::RevokeBySecret(made(root).await),
            Self::RevokeOverHttp(OverHttp::new(root, http).await),
            Self::RevokeUser("leaver"),
            Self::RevokeUser("gone"),
            Self::Disable(made(root).await),
            Self::Enable(disabled),
            Self::DisableUser("suspect"),
            Self::DisableUser("suspended"),
            Self::EnableUser("back"),
            Self::EnableUser("here"),
            Self::Update(made(root).await),
            Self::Create(Box::new(CreateTokenRequest { request_id: new_request_id(), ..ordinary() })),
            Self::Rotate(RotateTokenRequest { request_id: new_request_id(), ..rotate }),
            Self::UpdatePolicy(expiring("set")),
            Self::EnforcePolicy(EnforcePolicyRequest { organization_id, ..Default::default() }),
            Self::SetPlan(plan("default", "set", vec![rate("reads", 10), rate("writes", 5)])),
            Self::DeletePlan("deleted"),
            Self::AddCredits(addition),
        ]
    }

    /// Returns the name of the RPC, or the HTTP path.
    fn name(&self) -> &'static str {
        match self {
            Self::Revoke(_) | Self::RevokeBySecret(_) => "RevokeToken",
            Self::RevokeOverHttp(_) => REVOCATION,
            Self::RevokeUser(_) => "RevokeUserTokens",
            Self::Disable(_) => "DisableToken",
            Self::Enable(_) => "EnableToken",
            Self::DisableUser(_) => "DisableUser",
            Self::EnableUser(_) => "EnableUser",
            Self::Update(_) => "UpdateToken",
            Self::Create(_) => "CreateToken",
            Self::Rotate(_) => "RotateToken",
            Self::UpdatePolicy(_) => "UpdatePolicy",
            Self::EnforcePolicy(_) => "EnforcePolicy",
            Self::SetPlan(_) => "SetPlan",
            Self::DeletePlan(_) => "DeletePlan",
            Self::AddCredits(_) => "AddCredits",
        }
    }

    /// Requests the change; returns the token of a creation or a rotation.
    pub(crate) async fn ask(self, mut root: Client) -> Result<Option<Made>, Status> {
        match self {
            Self::Revoke(token) => root.revoke_token(revocation(&token.id, "")).await.map(drop)?,
            Self::RevokeBySecret(token) => {
                let target = Some(Target::Secret(token.secret));
                root.revoke_token(RevokeTokenRequest { target, ..revocation("", "") }).await.map(drop)?;
            }
            Self::RevokeOverHttp(asked) => asked.ask().await?,
            Self::RevokeUser(user_id) => root.revoke_user_tokens(leaver(user_id)).await.map(drop)?,
            Self::Disable(token) => {
                root.disable_token(DisableTokenRequest { token_id: token.id, ..Default::default() })
                    .await
                    .map(drop)?;
            }
            Self::Enable(token) => {
                root.enable_token(EnableTokenRequest { token_id: token.id }).await.map(drop)?;
            }
            Self::DisableUser(user_id) => root.disable_user(disabling(user_id)).await.map(drop)?,
            Self::EnableUser(user_id) => {
                let request = EnableUserRequest { user_id: user_id.to_owned(), ..Default::default() };
                root.enable_user(request).await.map(drop)?;
            }
            Self::Update(token) => root.update_token(renaming(&token.id)).await.map(drop)?,
            Self::Create(request) => return Ok(Some(root.create_token(*request).await?.into_inner().into())),
            Self::Rotate(request) => {
                let rotated = root.rotate_token(request).await?.into_inner();
                return Ok(Some(Made { id: rotated.token.unwrap().id, secret: rotated.secret }));
            }
            Self::UpdatePolicy(request) => root.update_policy(request).await.map(drop)?,
            Self::EnforcePolicy(request) => root.enforce_policy(request).await.map(drop)?,
            Self::SetPlan(request) => root.set_plan(request).await.map(drop)?,
            Self::AddCredits(request) => root.add_credits(request).await.map(drop)?,
            Self::DeletePlan(name) => {
                let request = DeletePlanRequest { name: name.to_owned(), ..Default::default() };
                // It was deleted by an earlier try, whose answer was lost.
                match root.delete_plan(request).await {
                    Err(status) if status.code() == Code::NotFound => {}
                    outcome => outcome.map(drop)?,
                }
            }
        }
        Ok(None)
    }

    /// Returns whether the change is there, as it was acknowledged; an error is neither yes nor no.
    pub(crate) async fn is_there(
        &self,
        root: &mut Client,
        acknowledged: Option<&Made>,
    ) -> Result<bool, Status> {
        let verdict = match self {
            Self::Revoke(_) | Self::RevokeBySecret(_) | Self::RevokeOverHttp(_) => Verdict::Revoked,
            Self::Disable(_) => Verdict::Disabled,
            _ => Verdict::Valid,
        };
        match self {
            Self::Revoke(token)
            | Self::RevokeBySecret(token)
            | Self::RevokeOverHttp(OverHttp { token, .. })
            | Self::Disable(token)
            | Self::Enable(token) => Ok(full(root, token).await?.verdict() == verdict),
            Self::RevokeUser(user_id) => {
                let tokens = list(root, "", user_id).await?;
                Ok(!tokens.is_empty() && tokens.iter().all(|token| token.state() == TokenState::Revoked))
            }
            Self::DisableUser(user_id) | Self::EnableUser(user_id) => {
                let disabled = matches!(self, Self::DisableUser(_));
                let request = ListUsersRequest { only_disabled: true, ..Default::default() };
                let users = root.list_users(request).await?.into_inner().users;
                let is_listed = users.iter().any(|user| user.user_id == *user_id);
                let state = if disabled { TokenState::Disabled } else { TokenState::Active };
                let tokens = list(root, "", user_id).await?;
                Ok(is_listed == disabled
                    && !tokens.is_empty()
                    && tokens.iter().all(|token| token.state() == state))
            }
            Self::Update(token) => {
                let found = root.get_token(GetTokenRequest { token_id: token.id.clone() }).await?;
                Ok(found.into_inner().token.unwrap().name == "renamed")
            }
            Self::Create(_) | Self::Rotate(_) => {
                let made = acknowledged.unwrap();
                let known = self.clone().ask(root.clone()).await?.unwrap();
                let is_known = (&known.id, &known.secret) == (&made.id, &made.secret);
                Ok(is_known && full(root, made).await?.verdict() == verdict)
            }
            Self::UpdatePolicy(UpdatePolicyRequest { organization_id, policy }) => {
                let request = GetPolicyRequest { organization_id: organization_id.clone() };
                Ok(root.get_policy(request).await?.into_inner().policy == *policy)
            }
            Self::SetPlan(SetPlanRequest { name, limits, .. }) => {
                let request = GetPlanRequest { name: name.clone(), ..Default::default() };
                Ok(root.get_plan(request).await?.into_inner().plan.unwrap().limits == *limits)
            }
            // A new one shows how much was there.
            Self::AddCredits(request) => {
                let request =
                    AddCreditsRequest { request_id: new_request_id(), amount: 1, ..request.clone() };
                Ok(root.add_credits(request).await?.into_inner().balance > 10 + 5)
            }
            Self::DeletePlan(name) => {
                let plans = root.list_plans(ListPlansRequest::default()).await?.into_inner().plans;
                Ok(plans.iter().all(|plan| plan.name != *name))
            }
            Self::EnforcePolicy(request) => {
                let tokens = list(root, &request.organization_id, "").await?;
                Ok(!tokens.is_empty() && tokens.iter().all(|token| token.state() == TokenState::Revoked))
            }
        }
    }
}

/// Checks that there is a change for every RPC that the contract does not mark as free of side effects, and for HTTP.
pub(crate) fn all_are_covered(changes: &[Change]) {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    let services = files.iter().flat_map(|file| &file.service);
    let service = services.into_iter().find(|found| SERVICE.ends_with(&format!(".{}", found.name())));
    let changing = service.unwrap().method.iter().filter(|method| {
        let level = method.options.as_ref().map(prost_types::MethodOptions::idempotency_level);
        // A stream of requests cannot be marked so.
        level != Some(IdempotencyLevel::NoSideEffects)
            && !method.client_streaming()
            // What they make and end lasts a quarter of an hour at most, and is no token; what Verify spends is not
            // what these rounds look for.
            && !["CreateConsoleLink", "CreatePortalSession", "RevokePortalSessions", "Verify"].contains(&method.name())
    });
    let covered: BTreeSet<_> = changes.iter().map(Change::name).collect();
    let changing = changing.map(prost_types::MethodDescriptorProto::name);
    assert_eq!(covered, changing.chain([REVOCATION]).collect());
}

/// Verifies a token against Postgres, with consistency FULL.
pub(crate) async fn full(root: &mut Client, token: &Made) -> Result<VerifyResponse, Status> {
    let full = VerifyRequest { consistency: Consistency::Full.into(), ..question(&token.secret, &[]) };
    Ok(root.verify(full).await?.into_inner())
}

async fn list(root: &mut Client, organization_id: &str, user_id: &str) -> Result<Vec<Token>, Status> {
    let (organization_id, user_id) = (organization_id.to_owned(), user_id.to_owned());
    let request = ListTokensRequest { organization_id, user_id, ..Default::default() };
    Ok(root.list_tokens(request).await?.into_inner().tokens)
}

fn disabling(user_id: &str) -> DisableUserRequest {
    DisableUserRequest { user_id: user_id.to_owned(), ..Default::default() }
}

/// Returns the policy that requires an organization's tokens to expire.
fn expiring(organization_id: &str) -> UpdatePolicyRequest {
    let policy = Some(Policy { expiration_required: true, ..Default::default() });
    UpdatePolicyRequest { organization_id: organization_id.to_owned(), policy }
}
