//! The transaction that disables a token or enables it again. Called by the disable action.

use time::OffsetDateTime;

use super::events::{self, EventKind};
use super::locks::{lock_caller, lock_token};
use super::revoke::given;
use super::rows::{self, TokenRow, select_tokens};
use super::{Store, StoreError, roots};
use crate::domain::event::field_changes;
use crate::domain::root::{LastRoot, LastRootError, is_root};
use crate::domain::{Caller, CredentialError, RevokeReason, Token};
use crate::secret::TokenId;

/// Whether to disable or enable a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    /// It is refused until it is enabled.
    Disabled(LastRoot),
    /// It is judged as if it had never been disabled.
    Enabled,
}

impl Usability {
    /// Returns what to do if the change would end the last active root token: enabling ends none.
    const fn last_root(self) -> LastRoot {
        match self {
            Self::Disabled(last_root) => last_root,
            Self::Enabled => LastRoot::Ended,
        }
    }
}

/// A token that was disabled or enabled, by this call or before it.
#[derive(Debug)]
pub struct Switched {
    /// The token as it is now.
    pub token: Token,
    /// The time to judge it by.
    pub now: OffsetDateTime,
    /// From this time on every replica knows.
    pub effective_time: OffsetDateTime,
}

impl Store {
    /// Disables or enables the token with this id when `allow` permits it, and records the reason; one
    /// already in that state is not changed. The inner result is the refusal of `allow`, of the caller,
    /// or of the last root token; `None`: no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; the outcome may be unknown then, and a retry is
    /// safe.
    pub async fn switch_token<E: From<CredentialError> + From<LastRootError>>(
        &self,
        caller: &Caller,
        id: TokenId,
        usability: Usability,
        reason: &RevokeReason,
        allow: impl Fn(&Caller, Option<&Token>) -> Result<(), E>,
    ) -> Result<Result<Option<Switched>, E>, StoreError> {
        let switched = self
            .retrying(async || {
                let mut transaction = self.begin().await?;
                let caller = lock_caller(&mut transaction, caller, Some(id)).await?;
                let before = lock_token(&mut transaction, id).await?;
                let ends_root = before.as_ref().is_some_and(is_root);
                let turn = roots::lock_for(&mut transaction, ends_root, usability.last_root()).await?;
                let (caller, now) = match caller.judge(&mut transaction).await? {
                    Ok(judged) => judged,
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                if let Err(refusal) = allow(&caller, before.as_ref()) {
                    return Ok(Err(refusal));
                }
                let Some(before) = before else { return Ok(Ok(None)) };
                let disables = usability != Usability::Enabled;
                if before.disable_time.is_some() == disables {
                    transaction.commit_unchanged().await?;
                    return Ok(Ok(Some((before, now))));
                }
                if turn
                    && let Err(refusal) = roots::demand_another(&mut transaction, &[id], None, now).await?
                {
                    return Ok(Err(refusal.into()));
                }
                sqlx::query!(
                    "UPDATE tokens SET disable_time = $2 WHERE id = $1",
                    rows::uuid(id),
                    disables.then_some(now)
                )
                .execute(&mut transaction)
                .await?;
                let row = select_tokens!("WHERE id = $1", rows::uuid(id)).fetch_one(&mut transaction);
                let after = Token::try_from(row.await?)?;
                let kind = if disables { EventKind::Disabled } else { EventKind::Enabled };
                let mut changes = field_changes(Some(&before), &after);
                changes.extend(given("disable_reason", reason));
                events::append_changes(&mut transaction, kind, &after, &changes, &caller.principal, now)
                    .await?;
                transaction.commit().await?;
                Ok(Ok(Some((after, now))))
            })
            .await?;
        match switched {
            Err(refusal) => Ok(Err(refusal)),
            Ok(None) => Ok(Ok(None)),
            Ok(Some((token, now))) => {
                // In a separate statement, so later than the commit that has returned.
                let effective_time = self.effective_time().await?;
                Ok(Ok(Some(Switched { token, now, effective_time })))
            }
        }
    }
}
