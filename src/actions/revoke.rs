//! Revoking a token. Called by `RevokeToken`.

use super::{ActionError, Actions};
use crate::domain::{Caller, Permission, RevokeReason, Token};
use crate::secret::TokenId;
use crate::store::Revoked;

impl Actions {
    /// Revokes a token by its id, for a caller with `tokend:write`. One that is revoked already keeps its
    /// first time and reason.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the database. After a database error the outcome
    /// may be unknown; a repeat is safe.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        id: TokenId,
        reason: &RevokeReason,
    ) -> Result<Revoked, ActionError> {
        caller.require(Permission::Write)?;
        let revoked = self.store.revoke_token(caller, id, reason, allow).await??;
        revoked.ok_or(ActionError::NotFound)
    }
}

fn allow(caller: &Caller, token: Option<&Token>) -> Result<(), ActionError> {
    super::manageable(caller, token).map(drop)
}
