//! Portal sessions: makes links to them for callers that have signed their users in, and ends the sessions of a user.
//! Called by `CreatePortalSession` and `RevokePortalSessions`. What is done in a session is done by the other actions.

use time::{Duration, OffsetDateTime};

use super::console_link::{NoLink, generate};
use super::users::require_enabled;
use super::{ActionError, Actions};
use crate::domain::session::PortalSession;
use crate::domain::{
    Caller, OrganizationId, Owner, OwnerKind, Permission, PortalTerms, Principal, Scopes, UserId,
};
use crate::secret::LinkCode;

/// The fields of a `CreatePortalSession` request.
#[derive(Debug, Clone)]
pub struct CreatePortalSession {
    /// The organization; `None`: see [`Caller::organization`].
    pub organization_id: Option<OrganizationId>,
    /// The person.
    pub user_id: UserId,
    /// The scopes that cover every scope of a token that is issued.
    pub scopes: Scopes,
    /// How long the session lasts.
    pub ttl: Duration,
}

/// A link to a portal session.
#[derive(Debug)]
pub struct PortalLink {
    /// Its code, which is not stored.
    pub code: LinkCode,
    /// When the link can no longer be used.
    pub link_expire_time: OffsetDateTime,
    /// When the session is over.
    pub session_expire_time: OffsetDateTime,
}

impl Actions {
    /// Makes a link to a portal session, for a caller with `tokend:write` whose token may vouch for the user.
    ///
    /// # Errors
    /// [`ActionError`]: access, the caller is not a token, the user is disabled, the database.
    pub async fn create_portal_session(
        &self,
        caller: &Caller,
        request: CreatePortalSession,
    ) -> Result<PortalLink, ActionError> {
        caller.require(Permission::WriteAll)?;
        let organization_id = caller.organization(request.organization_id)?;
        let terms = PortalTerms { organization_id, user_id: request.user_id, scopes: request.scopes };
        caller.may_vouch(&terms)?;
        let Principal::Token(token_id) = caller.principal else { return Err(NoLink::NoToken.into()) };
        let owner =
            Owner { organization_id: &terms.organization_id, user_id: &terms.user_id, kind: OwnerKind::User };
        let code = generate()?;
        let hash = code.hash();
        let store = self.admission.writes(caller).await?;
        let (link_expire_time, session_expire_time) = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                transaction.lock_owner_of_portal(owner).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.may_vouch(&terms)?;
                require_enabled(&mut transaction, owner).await?;
                let portal =
                    PortalSession { terms: terms.clone(), expire_time: now.saturating_add(request.ttl) };
                let link_expire_time = transaction.add_portal_link(&hash, token_id, &portal, now).await?;
                transaction.commit().await?;
                Ok((link_expire_time, portal.expire_time))
            })
            .await?;
        Ok(PortalLink { code, link_expire_time, session_expire_time })
    }

    /// Ends all portal sessions of a user and their unused links, for a caller with `tokend:write`. Returns how many.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database. A retry is safe.
    pub async fn revoke_portal_sessions(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        user_id: &UserId,
    ) -> Result<u64, ActionError> {
        caller.require(Permission::WriteAll)?;
        caller.may_end_all(user_id, OwnerKind::User)?;
        let organization_id = caller.organization(organization_id)?;
        let store = self.admission.revocations(caller).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let count = transaction.end_portals(&organization_id, user_id).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, _) = locked.judge(&mut transaction).await?;
                caller.require(Permission::WriteAll)?;
                caller.organization(Some(organization_id.clone()))?;
                caller.may_end_all(user_id, OwnerKind::User)?;
                transaction.commit().await?;
                Ok(count)
            })
            .await
    }
}
