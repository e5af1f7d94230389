//! Returns the result of an earlier creation or rotation again, by its request id alone, or makes that impossible. Called
//! by the console, which derives the ids of its requests from a person's session: only that session has the id.

use super::mint::Created;
use super::{ActionError, Actions, create, rotate};
use crate::domain::{Caller, Permission};
use crate::secret::{RequestContext, RequestId};

impl Actions {
    /// Returns what a creation or rotation with this request id was answered, if it was completed within the last 24 hours.
    ///
    /// # Errors
    /// [`ActionError`]: access, also if it is lost since; its secret cannot be shown again; the database.
    pub async fn created_by_request(
        &self,
        caller: &Caller,
        request_id: &RequestId,
    ) -> Result<Option<Created>, ActionError> {
        caller.require(Permission::WriteOwn)?;
        let principal = caller.principal.to_string();
        let Some((caller, known)) = self.known(caller, &request_id.mac(&principal)).await? else {
            return Ok(None);
        };
        let unrepeatable = || ActionError::Unrepeatable(known.token_id);
        let (token, now) = known.token.ok_or_else(unrepeatable)?;
        caller.may_issue_again(super::manageable(&caller, Some(&token))?)?;
        let context = RequestContext {
            // Only a rotation makes a token from another one.
            rpc: if token.rotated_from.is_some() { rotate::RPC } else { create::RPC },
            organization_id: token.organization_id.as_str(),
            caller: &principal,
            token_id: known.token_id,
            request_id,
        };
        let keyring = self.keyring.get();
        let secret = keyring.derive_secret(known.body_mac.key_id, known.salt, &context);
        let secret = secret.ok_or_else(unrepeatable)?.render(&self.prefix);
        Ok(Some(Created { token, now, secret }))
    }

    /// Makes the secret of a completed request unrecoverable: neither a retry nor
    /// [`Self::created_by_request`] gives it again. Nothing happens if there is no such request.
    ///
    /// # Errors
    /// [`ActionError`]: the caller's credential, the database. A retry is safe.
    pub async fn forget_request(&self, caller: &Caller, request_id: &RequestId) -> Result<(), ActionError> {
        let mac = request_id.mac(&caller.principal.to_string());
        let store = self.admission.writes(caller).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.forget_request(&mac).await?;
                locked.judge(&mut transaction).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }
}
