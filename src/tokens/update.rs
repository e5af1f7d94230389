//! Changes the fields of a token. Called by `UpdateToken`.

use time::OffsetDateTime;

use super::plans::hold_plan;
use super::{ActionError, Actions, StateError};
use crate::domain::event::EventKind;
use crate::domain::policy::Policy;
use crate::domain::root::{LastRoot, is_root};
use crate::domain::{
    Caller, Expiration, Grant, Labels, Networks, Permission, PlanName, Scopes, Token, TokenName, TokenState,
};
use crate::secret::TokenId;
use crate::store::{PolicyContext, Successor};

/// The changes; a field with `None` stays.
#[derive(Debug, Clone)]
pub struct TokenChange {
    /// The new name.
    pub name: Option<TokenName>,
    /// The new labels.
    pub labels: Option<Labels>,
    /// The new scopes.
    pub scopes: Option<Scopes>,
    /// The new expiration.
    pub expiration: Option<Expiration>,
    /// The networks from which it may be used.
    pub allowed_cidrs: Option<Networks>,
    /// What the tokens that it issues may have at most; `Some(None)`: all that its scopes allow.
    pub grant: Option<Option<Grant>>,
    /// The plan whose limits it has; `Some(None)`: none.
    pub plan: Option<Option<PlanName>>,
    /// What to do if it would end the last active root token, now or soon.
    pub last_root: LastRoot,
}

impl Actions {
    /// Changes a token by its id, for a caller with `tokend:write` or `tokend:self`. Returns it with the time of the
    /// change.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a revoked token, an expired one with a new
    /// expiration, an expiration that is not in the future, the last root token, a plan that does not exist, the
    /// database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn update_token(
        &self,
        caller: &Caller,
        id: TokenId,
        change: &TokenChange,
    ) -> Result<(Token, OffsetDateTime), ActionError> {
        caller.require(Permission::WriteOwn)?;
        // To get its owner, who never changes. Checked again inside the transaction; here so that
        // nothing is locked or written for a token out of reach.
        let store = self.admission.writes(caller).await?;
        let found = store.read_token(id).await?.map(|(token, _)| token);
        let found = super::manageable(caller, found.as_ref())?;
        let owner = found.owner();
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(owner.organization_id).await?;
                transaction.lock_owner(&policy, owner).await?;
                let locked = transaction.lock_caller(caller, Some(id)).await?;
                let before = transaction.lock_token(id).await?;
                let ends_root = before.as_ref().is_some_and(is_root);
                let last = transaction.lock_roots(ends_root, change.last_root).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                let before = super::manageable(&caller, before.as_ref())?;
                let successor = transaction.successor(id, now).await?;
                let context = transaction.policy_context((policy, now), owner, Some(id)).await?;
                let token = apply(&caller, before, change, successor, &context)?;
                if last {
                    transaction.require_another_root(&[id], Some(&token), now).await?;
                }
                if token.plan != before.plan {
                    hold_plan(&mut transaction, &token).await?;
                }
                transaction.update_token(&token).await?;
                let by = &caller.principal;
                transaction.append_event(EventKind::Updated, (Some(before), &token), by, now).await?;
                transaction.commit().await?;
                Ok((token, now))
            })
            .await
    }
}

/// Returns the token with the changes, if its state, the caller and the policy allow them.
fn apply(
    caller: &Caller,
    before: &Token,
    change: &TokenChange,
    successor: Option<Successor>,
    context: &PolicyContext,
) -> Result<Token, ActionError> {
    let now = context.now;
    match before.state(now) {
        TokenState::Revoked => return Err(StateError::Revoked.into()),
        TokenState::Expired if change.expiration.is_some() => return Err(StateError::Expired.into()),
        _ => {}
    }
    let mut after = before.clone();
    if let Some(expiration) = change.expiration {
        after.expire_time = super::resolve(expiration, now)?;
    }
    take(&mut after.name, change.name.as_ref());
    take(&mut after.labels, change.labels.as_ref());
    take(&mut after.scopes, change.scopes.as_ref());
    take(&mut after.allowed_cidrs, change.allowed_cidrs.as_ref());
    take(&mut after.grant, change.grant.as_ref());
    take(&mut after.plan, change.plan.as_ref());
    if change.grant.is_some() || change.scopes.is_some() {
        super::check_grant(&after)?;
    }
    caller.may_change(before, &after)?;
    if after.plan != before.plan {
        let default = context.policy.default_plan.as_ref();
        caller.may_change_plan((before.plan.as_ref(), after.plan.as_ref()), default)?;
    }
    // Fields that the change does not touch may be older than the policy.
    if change.scopes.is_some() {
        context.policy.allows_scopes(&after)?;
    }
    if change.expiration.is_some() || !Policy::binds(before) {
        context.policy.allows_end(&after)?;
    }
    if change.plan.is_some() || !Policy::binds(before) {
        context.policy.allows_plan(&after)?;
    }
    if let Some(Successor { create_time, .. }) = successor
        && change.expiration.is_some()
        && context.policy.limits_graces()
    {
        context.policy.allows_grace(&after, create_time)?;
    }
    let counts = !successor.is_some_and(|successor| successor.is_active);
    // It has not been counted so far.
    if counts && !Policy::binds(before) && before.state(now) != TokenState::Expired {
        context.policy.allows_another(&after, context.others)?;
    }
    Ok(after)
}

fn take<T: Clone>(field: &mut T, change: Option<&T>) {
    if let Some(change) = change {
        field.clone_from(change);
    }
}
