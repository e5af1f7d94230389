//! The RPCs that change tokens, after authentication. Each holds a pending invalidation in the engine
//! until its outcome is known, and drops it also when the client cancels. Called by the service alone.
//! Each checks the permission that it needs before the fields: a caller without it learns nothing about them.
//! The action judges it again in its transaction, which is what access depends on.

use tracing::{Span, field};

use super::changes::{self, Revocation, Target};
use super::token_api::TokenApi;
use super::{convert, policies, users};
use crate::api::error::CallError;
use crate::api::proto::{
    DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse, EnforcePolicyRequest,
    EnforcePolicyResponse, RevokeTokenRequest, RevokeTokenResponse, RevokeUserTokensRequest,
    RevokeUserTokensResponse, RotateTokenRequest, RotateTokenResponse, UpdateTokenRequest,
    UpdateTokenResponse, revoke_token_request,
};
use crate::domain::root::LastRoot;
use crate::domain::{Caller, Permission, Token};
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::disable::{TokenUsability, Usability};
use crate::tokens::revoke::{RevokeToken, Right};
use crate::verify::{ClientKey, Credential, ProveError};

impl TokenApi {
    pub(super) async fn update(
        &self,
        credential: &Credential,
        message: UpdateTokenRequest,
    ) -> Result<UpdateTokenResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::WriteOwn)?;
        let (id, change) = changes::update_request(message)?;
        Span::current().record("token.id", field::display(id));
        let _invalidation = self.context.engine.invalidate_token(id);
        let updated = self.context.actions.update_token(caller, id, &change).await?;
        record_owner(&updated.0);
        Ok(changes::update_response(&updated))
    }

    pub(super) async fn rotate(
        &self,
        credential: &Credential,
        message: RotateTokenRequest,
    ) -> Result<RotateTokenResponse, CallError> {
        let caller = credential.caller();
        if !changes::rotates_itself(caller, &message) {
            caller.require(Permission::WriteOwn)?;
        }
        let request = changes::rotate_request(caller, &message)?;
        Span::current().record("token.id", field::display(request.id));
        // The old token now expires earlier.
        let _invalidation = self.context.engine.invalidate_token(request.id);
        let created = self.context.actions.rotate_token(caller, request).await?;
        record_owner(&created.token);
        Ok(changes::rotate_response(&created))
    }

    pub(super) async fn revoke(
        &self,
        credential: &Credential,
        message: RevokeTokenRequest,
    ) -> Result<RevokeTokenResponse, CallError> {
        let caller = credential.caller();
        if !matches!(message.target, Some(revoke_token_request::Target::Secret(_))) {
            caller.require(Permission::WriteOwn)?;
        }
        let revocation = changes::revoke_request(&message)?;
        let (id, right) = match revocation.target {
            Target::Id(id) => (id, Right::Permission),
            Target::Secret(secret) => (self.proven(caller, secret).await?, Right::Possession),
        };
        Span::current().record("token.id", field::display(id));
        let invalidation = self.context.engine.invalidate_token(id);
        let Revocation { extent, reason, last_root, .. } = revocation;
        let request = RevokeToken { id, right, extent, reason, last_root };
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let revoked = self.context.actions.revoke_token(caller, &request, &on_change).await?;
        record_owner(&revoked.token);
        let may_see = right == Right::Permission || caller.may_see(&revoked.token);
        Ok(changes::revoke_response(&revoked, may_see))
    }

    pub(super) async fn revoke_user(
        &self,
        credential: &Credential,
        message: RevokeUserTokensRequest,
    ) -> Result<RevokeUserTokensResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::WriteAll)?;
        let (named, reason) = users::revoke_request(&message)?;
        let organization_id = caller.organization(named.organization_id.clone())?;
        let how = (&reason, LastRoot::forced(message.force));
        Span::current().record("user.id", named.user_id.as_str());
        let invalidation = self.context.engine.begin_invalidation();
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let revoked = self.context.actions.revoke_user_tokens(caller, &named, how, &on_change).await?;
        Ok(changes::revoke_user_response(&revoked, &organization_id))
    }

    pub(super) async fn set_usability(
        &self,
        credential: &Credential,
        token_id: &str,
        usability: Usability,
        reason: &str,
    ) -> Result<TokenUsability, CallError> {
        let caller = credential.caller();
        caller.require(Permission::WriteOwn)?;
        let (id, reason) = changes::usability_request(token_id, reason)?;
        Span::current().record("token.id", field::display(id));
        let _invalidation = self.context.engine.invalidate_token(id);
        let changed = self.context.actions.set_usability(caller, id, usability, &reason).await?;
        record_owner(&changed.token);
        Ok(changed)
    }

    pub(super) async fn disable_owner(
        &self,
        credential: &Credential,
        message: &DisableUserRequest,
    ) -> Result<DisableUserResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::WriteAll)?;
        let (named, reason) = users::disable_request(message)?;
        Span::current().record("user.id", named.user_id.as_str());
        let invalidation = self.context.engine.begin_invalidation();
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let how = (&reason, LastRoot::forced(message.force));
        Ok(users::disable_response(
            &self.context.actions.disable_user(caller, &named, how, &on_change).await?,
        ))
    }

    pub(super) async fn enable_owner(
        &self,
        credential: &Credential,
        message: &EnableUserRequest,
    ) -> Result<EnableUserResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::WriteAll)?;
        let named = users::enable_request(message)?;
        Span::current().record("user.id", named.user_id.as_str());
        let invalidation = self.context.engine.begin_invalidation();
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        Ok(users::enable_response(&self.context.actions.enable_user(caller, &named, &on_change).await?))
    }

    pub(super) async fn enforce(
        &self,
        credential: &Credential,
        message: &EnforcePolicyRequest,
    ) -> Result<EnforcePolicyResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::Root)?;
        let organization_id = convert::organization(&message.organization_id)?;
        let invalidation = self.context.engine.begin_invalidation();
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let enforced = self
            .context
            .actions
            .enforce_policy(caller, organization_id, &message.page_token, &on_change)
            .await?;
        tracing::info!(changed = enforced.0.breaches.len(), "policy enforced on a page of tokens");
        Ok(policies::enforce_response(enforced))
    }

    /// Finds the token that a secret proves.
    async fn proven(&self, caller: &Caller, secret: &str) -> Result<TokenId, CallError> {
        let share = ClientKey::from(caller);
        match self.context.engine.prove(secret, share).await {
            Ok(found) => Ok(found.ok_or(ActionError::NotFound)?),
            Err(ProveError::Format(_)) => Err(changes::no_secret().into()),
            Err(ProveError::Undetermined(error)) => Err(error.into()),
        }
    }
}

fn record_owner(token: &Token) {
    Span::current().record("user.id", token.user_id.as_str());
}
