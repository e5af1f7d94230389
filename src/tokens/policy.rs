//! Reads and sets an organization's policy. Called by `GetPolicy` and `UpdatePolicy`.

use super::{ActionError, Actions};
use crate::domain::policy::{Policy, StoredPolicy};
use crate::domain::{Caller, OrganizationId, Permission};

impl Actions {
    /// Reads an organization's policy, for a caller with `tokend:read`.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database.
    pub async fn get_policy(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
    ) -> Result<(OrganizationId, StoredPolicy), ActionError> {
        caller.require(Permission::Read)?;
        let organization_id = caller.organization(organization_id)?;
        let stored = self.admission.reads(caller).await?.read_policy(&organization_id).await?;
        Ok((organization_id, stored))
    }

    /// Sets an organization's policy, for a caller with `tokend:root`: a caller bound by it must not
    /// loosen it.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database. After a database error the outcome may be unknown; a
    /// retry is safe.
    pub async fn update_policy(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        policy: &Policy,
    ) -> Result<(OrganizationId, StoredPolicy), ActionError> {
        caller.require(Permission::Root)?;
        let organization_id = caller.organization(organization_id)?;
        let store = self.admission.writes(caller).await?;
        let stored = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                transaction.lock_policy(&organization_id).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.require(Permission::Root)?;
                let by = &caller.principal;
                let stored = transaction.put_policy(&organization_id, policy, by, now).await?;
                transaction.commit().await?;
                Ok(stored)
            })
            .await?;
        Ok((organization_id, stored))
    }
}
