//! Disables a token and enables it again. Called by `DisableToken` and `EnableToken`.

use time::OffsetDateTime;

use super::{ActionError, Actions, StateError};
use crate::domain::event::EventKind;
use crate::domain::root::{LastRoot, is_root};
use crate::domain::{Caller, Permission, RevokeReason, Token};
use crate::secret::TokenId;

/// Whether to disable or enable a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    /// It is refused until it is enabled.
    Disabled(LastRoot),
    /// It is judged as if it had never been disabled.
    Enabled,
}

/// A token that was disabled or enabled, by this call or before it.
#[derive(Debug)]
pub struct TokenUsability {
    /// The token as it is now.
    pub token: Token,
    /// The time to judge it by.
    pub now: OffsetDateTime,
    /// From this time on every replica knows.
    pub effective_time: OffsetDateTime,
}

impl Usability {
    /// Returns what to do if the change would end the last active root token: enabling ends none.
    const fn last_root(self) -> LastRoot {
        match self {
            Self::Disabled(last_root) => last_root,
            Self::Enabled => LastRoot::Allow,
        }
    }
}

impl Actions {
    /// Disables or enables a token by its id, for a caller with `tokend:write` or `tokend:self`, and records the reason.
    /// A token already in that state is not changed.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a revoked token, the last root token, the
    /// database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn set_usability(
        &self,
        caller: &Caller,
        id: TokenId,
        usability: Usability,
        reason: &RevokeReason,
    ) -> Result<TokenUsability, ActionError> {
        caller.require(Permission::WriteOwn)?;
        let mut store = match usability {
            Usability::Disabled(_) => self.admission.revocations(caller).await?,
            Usability::Enabled => self.admission.writes(caller).await?,
        };
        // Checked again inside the transaction; here so that nothing is locked for a token out of
        // reach.
        let found = store.read_token(id).await?.map(|(token, _)| token);
        allowed(caller, found.as_ref(), usability)?;
        if usability != Usability::Enabled && found.is_some_and(|token| token.disable_time.is_some()) {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let (token, now) = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, Some(id)).await?;
                let target = transaction.lock_target(id).await?;
                let ends_root = target.token.as_ref().is_some_and(is_root);
                let last = transaction.lock_roots(ends_root, usability.last_root()).await?;
                let (caller, now) = if last {
                    locked.judge(&mut transaction).await?
                } else {
                    (locked.judge_at(target.lock_time)?, target.lock_time)
                };
                let before = allowed(&caller, target.token.as_ref(), usability)?;
                let disables = usability != Usability::Enabled;
                if before.disable_time.is_some() == disables {
                    transaction.commit().await?;
                    return Ok((before.clone(), now));
                }
                if last {
                    transaction.require_another_root(&[id], None, now).await?;
                }
                transaction.set_disabled(id, disables.then_some(now)).await?;
                let after = transaction.reread_token(id).await?;
                let kind = if disables { EventKind::Disabled } else { EventKind::Enabled };
                let by = &caller.principal;
                transaction.append_disabling(kind, (before, &after), reason, by, now).await?;
                transaction.commit().await?;
                Ok((after, now))
            })
            .await?;
        // In a separate statement, so later than the commit that has returned.
        Ok(TokenUsability { token, now, effective_time: store.effective_time().await? })
    }
}

/// Returns the token if the caller may disable or enable it.
fn allowed<'a>(
    caller: &Caller,
    token: Option<&'a Token>,
    usability: Usability,
) -> Result<&'a Token, ActionError> {
    let token = super::manageable(caller, token)?;
    if token.revoke_time.is_some() {
        return Err(StateError::Revoked.into());
    }
    if usability == Usability::Enabled && token.disable_time.is_some() {
        caller.may_issue(token)?;
    }
    Ok(token)
}
