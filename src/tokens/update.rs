//! Changing what a token is. Called by `UpdateToken`.

use time::OffsetDateTime;

use super::{ActionError, Actions, StateError};
use crate::domain::policy::Policy;
use crate::domain::root::LastRoot;
use crate::domain::{Caller, Expiration, Labels, Networks, Permission, Scopes, Token, TokenName, TokenState};
use crate::secret::TokenId;
use crate::store::{Successor, Terms};

/// What is to be changed; what is `None` stays.
#[derive(Debug, Clone)]
pub struct TokenChange {
    /// What it is to be called.
    pub name: Option<TokenName>,
    /// What is to be noted on it.
    pub labels: Option<Labels>,
    /// What it is to allow.
    pub scopes: Option<Scopes>,
    /// When it is to end.
    pub expiration: Option<Expiration>,
    /// Where it is to be usable from.
    pub allowed_cidrs: Option<Networks>,
    /// What becomes of it where it would end the last active root token, at once or soon.
    pub last_root: LastRoot,
}

impl Actions {
    /// Changes a token by its id, for a caller with `tokend:write`. Returns it with the time of the change.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a token that is revoked, or expired and to be revived,
    /// an end that is not in the future, the last root token, the database. After a database error the outcome may be
    /// unknown; a repeat is safe.
    pub async fn update_token(
        &self,
        caller: &Caller,
        id: TokenId,
        change: &TokenChange,
    ) -> Result<(Token, OffsetDateTime), ActionError> {
        caller.require(Permission::Write)?;
        // For its owner, who never changes. Judged again inside the transaction; here so that nothing is locked or
        // written for what is out of reach.
        let store = self.admission.writes(caller).await?;
        let found = store.read_token(id).await?.map(|(token, _)| token);
        let found = super::manageable(caller, found.as_ref())?;
        let apply = |caller: &Caller, token: Option<&Token>, successor, terms: &Terms| {
            apply(caller, token, change, successor, terms)
        };
        let owner = (&found.organization_id, &found.user_id);
        store.update_token(caller, id, owner, change.last_root, apply).await?
    }
}

fn apply(
    caller: &Caller,
    token: Option<&Token>,
    change: &TokenChange,
    successor: Option<Successor>,
    terms: &Terms,
) -> Result<Token, ActionError> {
    let (before, now) = (super::manageable(caller, token)?, terms.now);
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
    caller.may_change(before, &after)?;
    // What the change does not touch may be older than the policy.
    if change.scopes.is_some() {
        terms.policy.allows_scopes(&after)?;
    }
    if change.expiration.is_some() || !Policy::binds(before) {
        terms.policy.allows_end(&after)?;
    }
    if let Some(Successor { create_time, .. }) = successor
        && change.expiration.is_some()
        && terms.policy.limits_graces()
    {
        terms.policy.allows_grace(&after, create_time)?;
    }
    let counts = !successor.is_some_and(|successor| successor.lives);
    // It has not been counted so far.
    if counts && !Policy::binds(before) && before.state(now) != TokenState::Expired {
        terms.policy.allows_another(&after, terms.others)?;
    }
    Ok(after)
}

fn take<T: Clone>(field: &mut T, change: Option<&T>) {
    if let Some(change) = change {
        field.clone_from(change);
    }
}
