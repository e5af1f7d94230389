//! The RPCs that change tokens, behind authentication. Each holds on to what the engine must forget until its
//! outcome is known, and lets go also when its caller goes away before. Called by the service alone.

use tracing::{Span, field};

use super::changes;
use super::error::CallError;
use super::proto::{UpdateTokenRequest, UpdateTokenResponse};
use super::service::TokenApi;
use crate::domain::Permission;
use crate::verify::Credential;

impl TokenApi {
    pub(super) async fn update(
        &self,
        credential: &Credential,
        message: UpdateTokenRequest,
    ) -> Result<UpdateTokenResponse, CallError> {
        let caller = credential.caller();
        caller.require(Permission::Write)?;
        let (id, change) = changes::update_request(message)?;
        Span::current().record("token.id", field::display(id));
        let _forgetting = self.engine.forgetting(id);
        let updated = self.actions.update_token(caller, id, &change).await?;
        Span::current().record("user.id", updated.0.user_id.as_str());
        Ok(changes::update_response(&updated))
    }
}
