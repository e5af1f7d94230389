//! The service: each RPC authenticates its caller, converts its message, runs the action and
//! builds the response. One span and at most one log line a call: see `call`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use tracing::{Span, field};

use super::reply::VerifyReply;
use super::reserved_body::ResponseReservation;
use super::server::token_service_server::TokenService;
use super::stream::VerifyResponses;
use super::token_api::TokenApi;
use super::watch::{WatchStream, Watcher};
use super::{audit, changes, convert, policies, users};
use crate::api::drain::DrainSignal;
use crate::api::proto::{
    AddCreditsRequest, AddCreditsResponse, CheckPolicyRequest, CheckPolicyResponse, CreateConsoleLinkRequest,
    CreateConsoleLinkResponse, CreatePortalSessionRequest, CreatePortalSessionResponse, CreateTokenRequest,
    CreateTokenResponse, DeletePlanRequest, DeletePlanResponse, DisableTokenRequest, DisableTokenResponse,
    DisableUserRequest, DisableUserResponse, EnableTokenRequest, EnableTokenResponse, EnableUserRequest,
    EnableUserResponse, EnforcePolicyRequest, EnforcePolicyResponse, GetPlanRequest, GetPlanResponse,
    GetPolicyRequest, GetPolicyResponse, GetTokenLimitsRequest, GetTokenLimitsResponse, GetTokenRequest,
    GetTokenResponse, GetUsageRequest, GetUsageResponse, ListPlansRequest, ListPlansResponse,
    ListTokenEventsRequest, ListTokenEventsResponse, ListTokensRequest, ListTokensResponse, ListUsersRequest,
    ListUsersResponse, RevokePortalSessionsRequest, RevokePortalSessionsResponse, RevokeTokenRequest,
    RevokeTokenResponse, RevokeUserTokensRequest, RevokeUserTokensResponse, RotateTokenRequest,
    RotateTokenResponse, SetPlanRequest, SetPlanResponse, UpdatePolicyRequest, UpdatePolicyResponse,
    UpdateTokenRequest, UpdateTokenResponse, VerifyRequest, VerifyStreamRequest, WatchTokensRequest,
};
use crate::domain::Permission;
use crate::domain::root::LastRoot;
use crate::domain::size::{LARGEST_EVENT, LARGEST_TOKEN};
use crate::domain::users::LARGEST_USER;
use crate::metrics::Rpc;
use crate::tokens::console_link::{NoLink, may_sign_in};
use crate::tokens::{ActionError, disable::Usability};

#[tonic::async_trait]
impl TokenService for TokenApi {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        self.call(Rpc::CreateToken, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::WriteOwn)?;
            let request = convert::create_request(message, caller.only_user(Permission::WriteOwn))?;
            let created = self.context.actions.create_token(caller, request).await?;
            Span::current().record("token.id", field::display(created.token.id));
            Span::current().record("user.id", created.token.user_id.as_str());
            Ok(convert::create_response(&created))
        })
        .await
    }

    async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        self.call(Rpc::GetToken, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::ReadOwn)?;
            let id = convert::get_request(&message)?;
            Span::current().record("token.id", field::display(id));
            let found = self.context.actions.get_token(caller, id).await?;
            Span::current().record("user.id", found.0.user_id.as_str());
            Ok(convert::get_response(&found))
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let most = |message: &ListTokensRequest| convert::page_bytes(message.page_size, LARGEST_TOKEN);
        self.call_for_page(
            Rpc::ListTokens,
            Permission::ReadOwn,
            request,
            most,
            async |credential, message| {
                let request = convert::list_request(message)?;
                let page = self.context.actions.list_tokens(credential.caller(), request).await?;
                Ok(convert::list_response(page).await)
            },
        )
        .await
    }

    async fn update_token(
        &self,
        request: Request<UpdateTokenRequest>,
    ) -> Result<Response<UpdateTokenResponse>, Status> {
        self.call(Rpc::UpdateToken, request, async |credential, message| {
            self.update(&credential, message).await
        })
        .await
    }

    async fn rotate_token(
        &self,
        request: Request<RotateTokenRequest>,
    ) -> Result<Response<RotateTokenResponse>, Status> {
        let suspect = |error: &_, request: &Request<_>| self.suspect(error, request);
        self.call_or(Rpc::RotateToken, request, suspect, async |credential, message| {
            self.rotate(&credential, message).await
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.call(Rpc::RevokeToken, request, async |credential, message| {
            self.revoke(&credential, message).await
        })
        .await
    }

    async fn revoke_user_tokens(
        &self,
        request: Request<RevokeUserTokensRequest>,
    ) -> Result<Response<RevokeUserTokensResponse>, Status> {
        self.call(Rpc::RevokeUserTokens, request, async |credential, message| {
            self.revoke_user(&credential, message).await
        })
        .await
    }

    async fn disable_token(
        &self,
        request: Request<DisableTokenRequest>,
    ) -> Result<Response<DisableTokenResponse>, Status> {
        self.call(Rpc::DisableToken, request, async |credential, message| {
            let disabled = Usability::Disabled(LastRoot::forced(message.force));
            let changed =
                self.set_usability(&credential, &message.token_id, disabled, &message.reason).await?;
            Ok(changes::disable_response(&changed))
        })
        .await
    }

    async fn enable_token(
        &self,
        request: Request<EnableTokenRequest>,
    ) -> Result<Response<EnableTokenResponse>, Status> {
        self.call(Rpc::EnableToken, request, async |credential, message| {
            let changed = self.set_usability(&credential, &message.token_id, Usability::Enabled, "").await?;
            Ok(changes::enable_response(&changed))
        })
        .await
    }

    async fn disable_user(
        &self,
        request: Request<DisableUserRequest>,
    ) -> Result<Response<DisableUserResponse>, Status> {
        self.call(Rpc::DisableUser, request, async |credential, message| {
            self.disable_owner(&credential, &message).await
        })
        .await
    }

    async fn enable_user(
        &self,
        request: Request<EnableUserRequest>,
    ) -> Result<Response<EnableUserResponse>, Status> {
        self.call(Rpc::EnableUser, request, async |credential, message| {
            self.enable_owner(&credential, &message).await
        })
        .await
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let most = |message: &ListUsersRequest| convert::page_bytes(message.page_size, LARGEST_USER);
        self.call_for_page(Rpc::ListUsers, Permission::ReadAll, request, most, async |credential, message| {
            let (listing, page_size) = users::list_request(&message)?;
            let page_token = Some(&*message.page_token).filter(|text| !text.is_empty());
            let caller = credential.caller();
            let page = self.context.actions.list_users(caller, listing, page_size, page_token).await?;
            Ok(users::list_response(page))
        })
        .await
    }

    async fn get_usage(
        &self,
        request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        self.answer_get_usage(request).await
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyReply>, Status> {
        self.answer_verify(request).await
    }

    type VerifyStreamStream = VerifyResponses<Streaming<VerifyStreamRequest>>;

    async fn verify_stream(
        &self,
        request: Request<Streaming<VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        self.answer_stream(request).await
    }

    type WatchTokensStream = WatchStream;

    async fn watch_tokens(
        &self,
        request: Request<WatchTokensRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let drain = DrainSignal::of(&request);
        let watching = self.open(Rpc::WatchTokens, request, async |credential, message| {
            let (engine, hub) = (Arc::clone(&self.context.engine), Arc::clone(&self.hub));
            let (keyring, response_memory) =
                (Arc::clone(&self.keyring), Arc::clone(&self.context.response_memory));
            let watcher = Watcher { engine, hub, keyring, credential, response_memory };
            watcher.start(&message, drain).await
        });
        let mut response = watching.await?;
        let reservations = response.get_ref().reservations();
        response.extensions_mut().insert(ResponseReservation::Pieces(reservations));
        Ok(response)
    }

    async fn list_token_events(
        &self,
        request: Request<ListTokenEventsRequest>,
    ) -> Result<Response<ListTokenEventsResponse>, Status> {
        let most = |message: &ListTokenEventsRequest| convert::page_bytes(message.page_size, LARGEST_EVENT);
        self.call_for_page(
            Rpc::ListTokenEvents,
            Permission::ReadOwn,
            request,
            most,
            async |credential, message| {
                let request = audit::list_request(message)?;
                Ok(audit::list_response(
                    self.context.actions.list_events(credential.caller(), request).await?,
                ))
            },
        )
        .await
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        self.call(Rpc::GetPolicy, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::ReadAll)?;
            let organization_id = convert::organization(&message.organization_id)?;
            Ok(policies::get_response(self.context.actions.get_policy(caller, organization_id).await?))
        })
        .await
    }

    async fn update_policy(
        &self,
        request: Request<UpdatePolicyRequest>,
    ) -> Result<Response<UpdatePolicyResponse>, Status> {
        self.call(Rpc::UpdatePolicy, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Root)?;
            let (organization_id, policy) = policies::update_request(message)?;
            let updated = self.context.actions.update_policy(caller, organization_id, &policy).await?;
            tracing::info!(organization.id = updated.0.as_str(), ?policy, "policy set");
            Ok(policies::update_response(updated))
        })
        .await
    }

    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        let most = |_: &_| convert::MAX_PAGE;
        self.call_for_page(
            Rpc::CheckPolicy,
            Permission::ReadAll,
            request,
            most,
            async |credential, message| {
                let caller = credential.caller();
                let (organization_id, policy) = policies::check_request(&message)?;
                let checked = self
                    .context
                    .actions
                    .check_policy(caller, organization_id, policy, &message.page_token)
                    .await?;
                Ok(policies::check_response(checked))
            },
        )
        .await
    }

    async fn enforce_policy(
        &self,
        request: Request<EnforcePolicyRequest>,
    ) -> Result<Response<EnforcePolicyResponse>, Status> {
        let most = |_: &_| convert::MAX_PAGE;
        self.call_for_page(
            Rpc::EnforcePolicy,
            Permission::Root,
            request,
            most,
            async |credential, message| self.enforce(&credential, &message).await,
        )
        .await
    }

    async fn set_plan(&self, request: Request<SetPlanRequest>) -> Result<Response<SetPlanResponse>, Status> {
        self.answer_set_plan(request).await
    }

    async fn get_plan(&self, request: Request<GetPlanRequest>) -> Result<Response<GetPlanResponse>, Status> {
        self.answer_get_plan(request).await
    }

    async fn list_plans(
        &self,
        request: Request<ListPlansRequest>,
    ) -> Result<Response<ListPlansResponse>, Status> {
        self.answer_list_plans(request).await
    }

    async fn delete_plan(
        &self,
        request: Request<DeletePlanRequest>,
    ) -> Result<Response<DeletePlanResponse>, Status> {
        self.answer_delete_plan(request).await
    }

    async fn add_credits(
        &self,
        request: Request<AddCreditsRequest>,
    ) -> Result<Response<AddCreditsResponse>, Status> {
        self.answer_add_credits(request).await
    }

    async fn get_token_limits(
        &self,
        request: Request<GetTokenLimitsRequest>,
    ) -> Result<Response<GetTokenLimitsResponse>, Status> {
        self.answer_get_token_limits(request).await
    }

    async fn create_console_link(
        &self,
        request: Request<CreateConsoleLinkRequest>,
    ) -> Result<Response<CreateConsoleLinkResponse>, Status> {
        self.call(Rpc::CreateConsoleLink, request, async |credential, _| {
            let caller = credential.caller();
            may_sign_in(caller)?;
            let console = self.console.as_deref().ok_or(ActionError::from(NoLink::NotServed))?;
            let link = self.context.actions.create_console_link(caller).await?;
            Ok(convert::link_response(console, &link))
        })
        .await
    }

    async fn create_portal_session(
        &self,
        request: Request<CreatePortalSessionRequest>,
    ) -> Result<Response<CreatePortalSessionResponse>, Status> {
        self.call(Rpc::CreatePortalSession, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::WriteAll)?;
            let request = users::portal_request(&message)?;
            Span::current().record("user.id", request.user_id.as_str());
            let console = self.console.as_deref().ok_or(ActionError::from(NoLink::NotServed))?;
            let link = self.context.actions.create_portal_session(caller, request).await?;
            Ok(users::portal_response(console, &link))
        })
        .await
    }

    async fn revoke_portal_sessions(
        &self,
        request: Request<RevokePortalSessionsRequest>,
    ) -> Result<Response<RevokePortalSessionsResponse>, Status> {
        self.call(Rpc::RevokePortalSessions, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::WriteAll)?;
            let (organization_id, user_id) = users::portal_end_request(&message)?;
            Span::current().record("user.id", user_id.as_str());
            let ended =
                self.context.actions.revoke_portal_sessions(caller, organization_id, &user_id).await?;
            Ok(RevokePortalSessionsResponse { revoked_count: users::count(ended) })
        })
        .await
    }
}
