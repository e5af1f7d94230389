//! The RPCs about plans, limits and usage, after the service: each authenticates its caller, converts its message, runs the action and builds
//! the response. Called by the service alone.

use tonic::{Request, Response, Status};

use super::token_api::TokenApi;
use super::{convert, credits, fields, limits, plans, usage, users};
use crate::api::proto::{
    AddCreditsRequest, AddCreditsResponse, DeletePlanRequest, DeletePlanResponse, GetPlanRequest,
    GetPlanResponse, GetTokenLimitsRequest, GetTokenLimitsResponse, GetUsageRequest, GetUsageResponse,
    ListPlansRequest, ListPlansResponse, SetPlanRequest, SetPlanResponse,
};
use crate::domain::plans::LARGEST_PLAN;
use crate::domain::{Permission, Violations};
use crate::metrics::Rpc;

impl TokenApi {
    pub(super) async fn answer_set_plan(
        &self,
        request: Request<SetPlanRequest>,
    ) -> Result<Response<SetPlanResponse>, Status> {
        self.call(Rpc::SetPlan, request, async |credential, message| {
            let caller = credential.caller();
            caller.may_set_plans()?;
            let (organization_id, plan) = plans::set_request(&message)?;
            let set = self.context.actions.set_plan(caller, organization_id, plan).await?;
            let (organization, plan) = (set.plan.organization_id.as_str(), set.plan.name.as_str());
            tracing::info!(organization.id = organization, plan, "plan set");
            Ok(SetPlanResponse { plan: Some(plans::plan(&set)) })
        })
        .await
    }

    pub(super) async fn answer_get_plan(
        &self,
        request: Request<GetPlanRequest>,
    ) -> Result<Response<GetPlanResponse>, Status> {
        self.call(Rpc::GetPlan, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::ReadAll)?;
            let (organization_id, name) = plans::named_request(&message.organization_id, &message.name)?;
            let found = self.context.actions.get_plan(caller, organization_id, &name).await?;
            Ok(GetPlanResponse { plan: Some(plans::plan(&found)) })
        })
        .await
    }

    pub(super) async fn answer_list_plans(
        &self,
        request: Request<ListPlansRequest>,
    ) -> Result<Response<ListPlansResponse>, Status> {
        let most = |message: &ListPlansRequest| convert::page_bytes(message.page_size, LARGEST_PLAN);
        self.call_for_page(Rpc::ListPlans, Permission::ReadAll, request, most, async |credential, message| {
            let (listing, page_size) = plans::list_request(&message)?;
            let page_token = Some(&*message.page_token).filter(|text| !text.is_empty());
            let caller = credential.caller();
            let page = self.context.actions.list_plans(caller, listing, page_size, page_token).await?;
            Ok(plans::list_response(page))
        })
        .await
    }

    pub(super) async fn answer_delete_plan(
        &self,
        request: Request<DeletePlanRequest>,
    ) -> Result<Response<DeletePlanResponse>, Status> {
        self.call(Rpc::DeletePlan, request, async |credential, message| {
            let caller = credential.caller();
            caller.may_set_plans()?;
            let (organization_id, name) = plans::named_request(&message.organization_id, &message.name)?;
            let (organization, ended) =
                self.context.actions.delete_plan(caller, organization_id, &name).await?;
            tracing::info!(organization.id = organization.as_str(), plan = name.as_str(), "plan deleted");
            Ok(DeletePlanResponse { ended_count: users::count(ended) })
        })
        .await
    }

    pub(super) async fn answer_add_credits(
        &self,
        request: Request<AddCreditsRequest>,
    ) -> Result<Response<AddCreditsResponse>, Status> {
        self.call(Rpc::AddCredits, request, async |credential, message| {
            let caller = credential.caller();
            caller.may_set_plans()?;
            let request = credits::request(&message)?;
            let (plan, limit, amount) = (request.plan.clone(), request.limit.clone(), request.amount);
            let balance = self.context.actions.add_credits(caller, request).await?;
            tracing::info!(plan = plan.as_str(), limit = limit.as_str(), amount, balance, "credits added");
            Ok(AddCreditsResponse { balance })
        })
        .await
    }

    pub(super) async fn answer_get_token_limits(
        &self,
        request: Request<GetTokenLimitsRequest>,
    ) -> Result<Response<GetTokenLimitsResponse>, Status> {
        self.call(Rpc::GetTokenLimits, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::ReadOwn)?;
            let id =
                fields::token_id(&message.token_id).map_err(|error| Violations::one("token_id", &error))?;
            let found = self.context.actions.token_limits(caller, id).await?;
            Ok(GetTokenLimitsResponse {
                plan: found.plan.map(|plan| plan.as_str().to_owned()).unwrap_or_default(),
                limits: found.limits.iter().map(limits::message).collect(),
                as_of_time: Some(fields::timestamp(found.now)),
            })
        })
        .await
    }

    pub(super) async fn answer_get_usage(
        &self,
        request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        let most = |_: &_| usage::MOST;
        self.call_for_page(Rpc::GetUsage, Permission::ReadOwn, request, most, async |credential, message| {
            let request = usage::request(&message)?;
            Ok(usage::response(self.context.actions.usage(credential.caller(), request).await?))
        })
        .await
    }
}
