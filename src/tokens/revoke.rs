//! Revokes a token by its id or by its secret, with the tokens rotated from it; and all tokens of a
//! user. Called by `RevokeToken` and `RevokeUserTokens`.

use super::{ActionError, Actions};
use crate::domain::root::LastRoot;
use crate::domain::{
    Caller, OrganizationId, Permission, ReservedScope, ReservedScopes, RevokeReason, TokenState, UserId,
};
use crate::secret::TokenId;
use crate::store::{Affected, Extent, Revocation, Revoked, RevokedUser, Store, Touch};

/// What entitles the caller to revoke a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The caller's permissions.
    Power,
    /// The caller has presented its secret: anyone who finds a secret may revoke it.
    Possession,
}

/// The fields of a `RevokeToken` request.
#[derive(Debug, Clone)]
pub struct RevokeToken {
    /// The token.
    pub id: TokenId,
    /// What entitles the caller.
    pub right: Right,
    /// Which tokens it covers.
    pub extent: Extent,
    /// The reason.
    pub reason: RevokeReason,
    /// What to do if it would end the last active root token; with possession it is revoked: a secret
    /// that was found must not stay valid.
    pub last_root: LastRoot,
}

impl Actions {
    /// Revokes a token. A revoked one keeps its first time and reason. `touch` receives every token
    /// that is about to change.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the last root token, the database. After a
    /// database error the outcome may be unknown; a retry is safe.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        request: &RevokeToken,
        touch: Touch<'_>,
    ) -> Result<Revoked, ActionError> {
        let RevokeToken { id, right, extent, ref reason, last_root } = *request;
        if right == Right::Power {
            caller.require(Permission::Write)?;
        }
        let allow = |caller: &Caller, affected: Affected<'_>| allow(caller, right, affected);
        let mut store = self.admission.revocations(caller).await?;
        let (extent, last_root) = match right {
            Right::Power => (extent, last_root),
            Right::Possession => (extent_of_possession(&store, caller, id, extent).await?, LastRoot::Ended),
        };
        // Checked again inside the transaction; here so that nothing is locked for a token out of
        // reach.
        let found = store.read_token(id).await?.map(|(token, _)| token);
        allow(caller, found.as_ref().map_or(Affected::Missing, Affected::Token))?;
        if found.is_some_and(|token| token.revoke_time.is_some())
            && (extent == Extent::OnlyThis || store.line_is_revoked(id).await?)
        {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let revocation = Revocation { id, extent, reason, last_root };
        let revoked = store.revoke_token(caller, revocation, allow, touch).await??;
        revoked.ok_or(ActionError::NotFound)
    }

    /// Revokes all tokens of a user, for a caller with `tokend:write` and every reserved scope among
    /// them. Revoked ones keep their first time and reason. `touch` as in [`Self::revoke_token`].
    ///
    /// # Errors
    /// [`ActionError`]: access, the last root token, the database. After a database error the outcome
    /// may be unknown; a retry is safe.
    pub async fn revoke_user_tokens(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        user_id: &UserId,
        (reason, last_root): (&RevokeReason, LastRoot),
        touch: Touch<'_>,
    ) -> Result<RevokedUser, ActionError> {
        caller.require(Permission::Write)?;
        let organization_id = caller.organization(organization_id)?;
        let allow = |caller: &Caller, reserved: ReservedScopes| -> Result<(), ActionError> {
            caller.require(Permission::Write)?;
            caller.organization(Some(organization_id.clone()))?;
            Ok(caller.may_manage_reserved(reserved)?)
        };
        let mut store = self.admission.bulk_revocations(caller).await?;
        if !store.has_unrevoked_tokens(&organization_id, user_id).await? {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let owner = (&organization_id, user_id);
        store.revoke_user_tokens(caller, owner, (reason, last_root), allow, touch).await?
    }
}

fn allow(caller: &Caller, right: Right, affected: Affected<'_>) -> Result<(), ActionError> {
    match (right, affected) {
        (_, Affected::Missing) => Err(ActionError::NotFound),
        (Right::Possession, _) => Ok(()),
        (Right::Power, Affected::Token(token)) => super::manageable(caller, Some(token)).map(drop),
        // Only a caller that may revoke everything may revoke it.
        (Right::Power, Affected::Unreadable) => {
            Ok(caller.may_manage_reserved([ReservedScope::Root].into_iter().collect())?)
        }
    }
}

/// Returns which tokens a presented secret revokes. One that is no longer valid, from an old leak for
/// example, revokes no valid token: its holder gets no power over the rest of the family. Unless the
/// organization's policy ends the family whenever a superseded secret turns up, or the caller could
/// revoke the token by its id.
///
/// Expiration and revocation are never undone, so this need not be checked within the transaction.
async fn extent_of_possession(
    store: &Store,
    caller: &Caller,
    id: TokenId,
    extent: Extent,
) -> Result<Extent, ActionError> {
    let Some((token, now)) = store.read_token(id).await? else { return Ok(extent) };
    let over = matches!(token.state(now), TokenState::Expired | TokenState::Revoked);
    let by_power =
        caller.require(Permission::Write).is_ok() && super::manageable(caller, Some(&token)).is_ok();
    if !over || by_power || store.read_policy(&token.organization_id).await?.policy.reuse_detection {
        return Ok(extent);
    }
    Ok(Extent::OnlyThis)
}
