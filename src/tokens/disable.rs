//! Disables a token and enables it again. Called by `DisableToken` and `EnableToken`.

use super::{ActionError, Actions, StateError};
use crate::domain::{Caller, Permission, RevokeReason, Token};
use crate::secret::TokenId;
use crate::store::{Switched, Usability};

impl Actions {
    /// Disables or enables a token by its id, for a caller with `tokend:write`, and records the reason.
    /// A token already in that state is not changed.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a revoked token, the last root token, the
    /// database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn switch_token(
        &self,
        caller: &Caller,
        id: TokenId,
        usability: Usability,
        reason: &RevokeReason,
    ) -> Result<Switched, ActionError> {
        caller.require(Permission::Write)?;
        let allow = |caller: &Caller, token: Option<&Token>| allow(caller, token, usability);
        let mut store = match usability {
            Usability::Disabled(_) => self.admission.revocations(caller).await?,
            Usability::Enabled => self.admission.writes(caller).await?,
        };
        // Checked again inside the transaction; here so that nothing is locked for a token out of
        // reach.
        let found = store.read_token(id).await?.map(|(token, _)| token);
        allow(caller, found.as_ref())?;
        if usability != Usability::Enabled && found.is_some_and(|token| token.disable_time.is_some()) {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let switched = store.switch_token(caller, id, usability, reason, allow).await??;
        switched.ok_or(ActionError::NotFound)
    }
}

fn allow(caller: &Caller, token: Option<&Token>, usability: Usability) -> Result<(), ActionError> {
    let token = super::manageable(caller, token)?;
    if token.revoke_time.is_some() {
        return Err(StateError::Revoked.into());
    }
    if usability == Usability::Enabled && token.disable_time.is_some() {
        caller.may_enable(token)?;
    }
    Ok(())
}
