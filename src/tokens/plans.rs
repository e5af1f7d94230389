//! Sets, reads and deletes plans. Called by `SetPlan`, `GetPlan`, `ListPlans` and `DeletePlan`. Does not know how limits
//! are counted.

use super::{ActionError, Actions};
use crate::domain::plan::Plan;
use crate::domain::plans::{MAX_COUNTED, MAX_NAMED, PlanListing, PlanUse, StoredPlan};
use crate::domain::policy::Policy;
use crate::domain::{Caller, OrganizationId, Permission, PlanName, Token};
use crate::secret::TokenId;
use crate::store::{PlanToken, Transaction};

/// How many tokens are read at once to learn whether a plan is in use.
const READ: u32 = 10_000;

/// How many ended tokens lose a plan in one transaction.
const BATCH: u32 = 500;

/// A page of plans.
#[derive(Debug)]
pub struct PlansPage {
    /// The plans.
    pub plans: Vec<StoredPlan>,
    /// Continues after this page; `None`: it was the last one.
    pub next_page_token: Option<String>,
}

impl Actions {
    /// Sets a plan of this organization, for a caller with `tokend:write` and no grant.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn set_plan(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        mut plan: Plan,
    ) -> Result<StoredPlan, ActionError> {
        caller.may_set_plans()?;
        plan.organization_id = caller.organization(organization_id)?;
        let store = self.admission.writes(caller).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.may_set_plans()?;
                caller.organization(Some(plan.organization_id.clone()))?;
                transaction.put_plan(&plan, &caller.principal, now).await?;
                transaction.commit().await?;
                let updated_by = caller.principal.to_string();
                Ok(StoredPlan { plan: plan.clone(), updated_by, update_time: now })
            })
            .await
    }

    /// Reads a plan, for a caller with `tokend:read`.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such plan, the database.
    pub async fn get_plan(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        name: &PlanName,
    ) -> Result<StoredPlan, ActionError> {
        caller.require(Permission::ReadAll)?;
        let organization_id = caller.organization(organization_id)?;
        let found = self.admission.reads(caller).await?.read_plan(&organization_id, name).await?;
        found.ok_or(ActionError::PlanNotFound)
    }

    /// Lists plans, for a caller with `tokend:read`.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, the database.
    pub async fn list_plans(
        &self,
        caller: &Caller,
        mut listing: PlanListing,
        page_size: u32,
        page_token: Option<&str>,
    ) -> Result<PlansPage, ActionError> {
        caller.require(Permission::ReadAll)?;
        listing.organization_id = caller.listed_organization(listing.organization_id)?;
        let keyring = self.keyring.peek();
        let after = page_token.map(|text| listing.parse_page_token(text, &keyring)).transpose()?;
        drop(keyring);
        let store = self.admission.reads(caller).await?;
        let (plans, last) = store.list_plans(&listing, after, page_size).await?;
        let next_page_token = last.map(|position| listing.page_token(&position, &self.keyring.peek()));
        Ok(PlansPage { plans, next_page_token })
    }

    /// Deletes a plan that only ended tokens name, for a caller with `tokend:write` and no grant: takes it from those,
    /// then deletes it. Returns how many they were. A call that fails may have taken it from some.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such plan, a token that has not ended names it, the database. After a database error
    /// the outcome may be unknown; a retry is safe.
    pub async fn delete_plan(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        name: &PlanName,
    ) -> Result<(OrganizationId, u64), ActionError> {
        caller.may_set_plans()?;
        let organization_id = caller.organization(organization_id)?;
        let plan = (&organization_id, name);
        let policy = self.admission.reads(caller).await?.read_policy(&organization_id).await?.policy;
        require_no_default(&policy, name)?;
        let mut removed: u64 = 0;
        loop {
            self.require_unused(caller, plan).await?;
            let mut after = None;
            while let Some((last, count)) = self.remove_from_ended(caller, plan, after).await? {
                (after, removed) = (Some(last), removed.saturating_add(count));
            }
            // Else a token has named it meanwhile.
            if self.delete_unnamed(caller, plan).await? {
                return Ok((organization_id, removed));
            }
        }
    }

    /// Checks that no token that has not ended names a plan.
    async fn require_unused(
        &self,
        caller: &Caller,
        plan: (&OrganizationId, &PlanName),
    ) -> Result<(), ActionError> {
        let (mut found, mut after) = (PlanUse { tokens: 0, first: Vec::new() }, None);
        while found.tokens < MAX_COUNTED {
            let store = self.admission.reads(caller).await?;
            let tokens = store.tokens_of_plan(plan, after, READ).await?;
            after = tokens.last().map(|token| token.id);
            let using = tokens.iter().filter(|token| !token.has_ended).map(|token| token.id);
            let left = MAX_NAMED.saturating_sub(found.first.len());
            found.first.extend(using.clone().take(left));
            found.tokens = found.tokens.saturating_add(using.count()).min(MAX_COUNTED);
            if after.is_none() {
                break;
            }
        }
        if found.tokens == 0 { Ok(()) } else { Err(ActionError::PlanInUse(found)) }
    }

    /// Takes a plan from the ended ones of the next tokens that name it. Returns the last of these tokens, and from how
    /// many; `None`: there are no more.
    async fn remove_from_ended(
        &self,
        caller: &Caller,
        (organization_id, name): (&OrganizationId, &PlanName),
        after: Option<TokenId>,
    ) -> Result<Option<(TokenId, u64)>, ActionError> {
        let store = self.admission.writes(caller).await?;
        let tokens = store.tokens_of_plan((organization_id, name), after, BATCH).await?;
        let Some(PlanToken { id: last, .. }) = tokens.last().copied() else { return Ok(None) };
        // The caller's own token has not ended, so it is locked once.
        let ended: Vec<_> = tokens.iter().filter(|token| token.has_ended).map(|token| token.id).collect();
        let count = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.lock_tokens(&ended).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.may_set_plans()?;
                caller.organization(Some(organization_id.clone()))?;
                let count = transaction.remove_plan(&ended, name, &caller.principal, now).await?;
                transaction.commit().await?;
                Ok(count)
            })
            .await?;
        Ok(Some((last, count)))
    }

    /// Deletes a plan that no token names; returns whether it did.
    async fn delete_unnamed(
        &self,
        caller: &Caller,
        (organization_id, name): (&OrganizationId, &PlanName),
    ) -> Result<bool, ActionError> {
        let store = self.admission.writes(caller).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(organization_id).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let found = transaction.lock_plan(organization_id, name).await?;
                let (caller, _) = locked.judge(&mut transaction).await?;
                caller.may_set_plans()?;
                caller.organization(Some(organization_id.clone()))?;
                if !found {
                    // This acknowledges its deletion by another transaction, which may still wait for a standby.
                    transaction.commit().await?;
                    return Err(ActionError::PlanNotFound);
                }
                require_no_default(&policy, name)?;
                let deleted = transaction.delete_plan(organization_id, name).await?;
                transaction.commit().await?;
                Ok(deleted)
            })
            .await
    }
}

/// Checks that a policy does not name a plan as its default.
fn require_no_default(policy: &Policy, name: &PlanName) -> Result<(), ActionError> {
    if policy.default_plan.as_ref() == Some(name) { Err(ActionError::PlanIsDefault) } else { Ok(()) }
}

/// Checks that a token's plan exists, and keeps it from being deleted before the transaction ends.
pub(super) async fn hold_plan(transaction: &mut Transaction, token: &Token) -> Result<(), ActionError> {
    let Some(plan) = &token.plan else { return Ok(()) };
    if transaction.hold_plan(&token.organization_id, plan).await? {
        return Ok(());
    }
    Err(ActionError::NoSuchPlan(plan.clone()))
}
