//! Reads and sets an organization's policy. Called by `GetPolicy` and `UpdatePolicy`.

use super::{ActionError, Actions};
use crate::domain::policy::{Policy, StoredPolicy};
use crate::domain::{Caller, Extent, OrganizationId, Owner, OwnerKind, Permission, UserId};

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
        caller.require(Permission::ReadAll)?;
        let organization_id = caller.organization(organization_id)?;
        let stored = self.admission.reads(caller).await?.read_policy(&organization_id).await?;
        Ok((organization_id, stored))
    }

    /// Reads what a token of this user would be created under, for a caller with `tokend:write` or `tokend:self`: the policy, and
    /// how many tokens of the user count against its limit; 0 without a limit or a user. Both may have changed when
    /// the token is created.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database.
    pub async fn creation_terms(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        user: Option<(&UserId, OwnerKind)>,
    ) -> Result<(Policy, u32), ActionError> {
        caller.require(Permission::WriteOwn)?;
        let organization_id = caller.organization(organization_id)?;
        let user = match caller.extent(Permission::WriteOwn)? {
            Extent::User(_, own, kind) => Some((own, kind)),
            Extent::Any | Extent::Organization(_) => user,
        };
        let store = self.admission.reads(caller).await?;
        let policy = store.read_policy(&organization_id).await?.policy;
        let count = match user {
            Some((user_id, kind)) => {
                let owner = Owner { organization_id: &organization_id, user_id, kind };
                store.read_count(&policy, owner).await?
            }
            None => 0,
        };
        Ok((policy, count))
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
        let replaced = self.replace_policy(caller, organization_id, policy, &|_| true).await?;
        // Whatever it was is replaced.
        replaced.ok_or(ActionError::NotFound)
    }

    /// Sets an organization's policy like [`Self::update_policy`], if the one that is set then is `expected`; `None`: it
    /// is not, and nothing was changed.
    ///
    /// # Errors
    /// As there.
    pub async fn replace_policy(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        policy: &Policy,
        expected: &(dyn Fn(&StoredPolicy) -> bool + Sync),
    ) -> Result<Option<(OrganizationId, StoredPolicy)>, ActionError> {
        caller.require(Permission::Root)?;
        let organization_id = caller.organization(organization_id)?;
        let store = self.admission.writes(caller).await?;
        let stored = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let earlier = transaction.lock_policy(&organization_id).await?;
                if !expected(&earlier) {
                    return Ok(None);
                }
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.require(Permission::Root)?;
                if let Some(plan) = &policy.default_plan
                    && !transaction.hold_plan(&organization_id, plan).await?
                {
                    return Err(ActionError::NoSuchPlan(plan.clone()));
                }
                let by = &caller.principal;
                let stored = transaction.put_policy(&organization_id, policy, by, now).await?;
                transaction.commit().await?;
                Ok(Some(stored))
            })
            .await?;
        Ok(stored.map(|stored| (organization_id, stored)))
    }
}
