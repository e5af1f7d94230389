//! Revoking: a token by its id or by its secret, with what was rotated from it; and all tokens of a user. Called
//! by `RevokeToken` and `RevokeUserTokens`.

use super::{ActionError, Actions};
use crate::domain::{Caller, OrganizationId, Permission, ReservedScopes, RevokeReason, Token, UserId};
use crate::secret::TokenId;
use crate::store::{Extent, Revoked, RevokedUser, Touch};

/// By what right a token is to be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The caller's powers over tokens.
    Power,
    /// The caller has shown its secret: whoever finds one may end it.
    Possession,
}

/// What is to be revoked.
#[derive(Debug, Clone)]
pub struct RevokeToken {
    /// The token.
    pub id: TokenId,
    /// By what right.
    pub right: Right,
    /// How far it goes.
    pub extent: Extent,
    /// Why.
    pub reason: RevokeReason,
}

impl Actions {
    /// Revokes a token. One that is revoked already keeps its first time and reason. `touch` is told of every
    /// token that is about to change.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the database. After a database error the outcome
    /// may be unknown; a repeat is safe.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        request: &RevokeToken,
        touch: Touch<'_>,
    ) -> Result<Revoked, ActionError> {
        let RevokeToken { id, right, extent, ref reason } = *request;
        if right == Right::Power {
            caller.require(Permission::Write)?;
        }
        let allow = |caller: &Caller, token: Option<&Token>| match right {
            Right::Power => super::manageable(caller, token).map(drop),
            Right::Possession => token.map(drop).ok_or(ActionError::NotFound),
        };
        let revoked = self.store.revoke_token(caller, id, extent, reason, allow, touch).await??;
        revoked.ok_or(ActionError::NotFound)
    }

    /// Revokes all tokens of a user, for a caller with `tokend:write` and every reserved scope among them. Those
    /// that are revoked already keep their first time and reason. `touch` as in [`Self::revoke_token`].
    ///
    /// # Errors
    /// [`ActionError`]: access, the database. After a database error the outcome may be unknown; a repeat is
    /// safe.
    pub async fn revoke_user_tokens(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        user_id: &UserId,
        reason: &RevokeReason,
        touch: Touch<'_>,
    ) -> Result<RevokedUser, ActionError> {
        caller.require(Permission::Write)?;
        let organization_id = caller.organization(organization_id)?;
        let allow = |caller: &Caller, reserved: ReservedScopes| -> Result<(), ActionError> {
            caller.require(Permission::Write)?;
            caller.organization(Some(organization_id.clone()))?;
            Ok(caller.may_manage_reserved(reserved)?)
        };
        self.store.revoke_user_tokens(caller, &organization_id, user_id, reason, allow, touch).await?
    }
}
