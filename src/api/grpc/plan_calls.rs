//! The RPCs about plans, after the service: each authenticates its caller, converts its message, runs the action and builds
//! the response. Called by the service alone.

use tonic::{Request, Response, Status};

use super::token_api::TokenApi;
use super::{convert, plans, users};
use crate::api::proto::{
    DeletePlanRequest, DeletePlanResponse, GetPlanRequest, GetPlanResponse, ListPlansRequest,
    ListPlansResponse, SetPlanRequest, SetPlanResponse,
};
use crate::domain::Permission;
use crate::domain::plans::LARGEST_PLAN;
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
}
