//! The transaction that puts a token out of use for a while, or takes it back. Called by the disable action.

use time::OffsetDateTime;

use super::events::{self, EventKind};
use super::rows::{self, TokenRow, select_tokens};
use super::tokens::{lock_caller, lock_token};
use super::{Store, StoreError};
use crate::domain::{Caller, CredentialError, Token};
use crate::secret::TokenId;

/// Whether a token is to be usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    /// It is to be refused until it is enabled.
    Disabled,
    /// It is to be judged as if it had never been disabled.
    Enabled,
}

/// A token that was disabled or enabled, by this call or before it.
#[derive(Debug)]
pub struct Switched {
    /// The token as it is now.
    pub token: Token,
    /// From when on every replica knows.
    pub effective_time: OffsetDateTime,
}

impl Store {
    /// Disables or enables the token with this id when `allow` agrees; one that is so already stays as it is. The
    /// inner result is `allow`'s own refusal, or the caller's; `None`: no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; the outcome may be unknown then, and a repeat is safe.
    pub async fn switch_token<E: From<CredentialError>>(
        &self,
        caller: &Caller,
        id: TokenId,
        usability: Usability,
        allow: impl Fn(&Caller, Option<&Token>) -> Result<(), E>,
    ) -> Result<Result<Option<Switched>, E>, StoreError> {
        let switched = self
            .retrying(async || {
                let mut transaction = self.begin().await?;
                let caller = lock_caller(&mut transaction, caller, Some(id)).await?;
                let before = lock_token(&mut transaction, id).await?;
                let (caller, now) = match caller.judge(&mut transaction).await? {
                    Ok(judged) => judged,
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                if let Err(refusal) = allow(&caller, before.as_ref()) {
                    return Ok(Err(refusal));
                }
                let Some(before) = before else { return Ok(Ok(None)) };
                let disables = usability == Usability::Disabled;
                if before.disable_time.is_some() == disables {
                    transaction.commit_unchanged().await?;
                    return Ok(Ok(Some(before)));
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
                events::append(&mut transaction, kind, Some(&before), &after, &caller.principal, now).await?;
                transaction.commit().await?;
                Ok(Ok(Some(after)))
            })
            .await?;
        match switched {
            Err(refusal) => Ok(Err(refusal)),
            Ok(None) => Ok(Ok(None)),
            Ok(Some(token)) => {
                // In a statement of its own, so later than the commit that has returned.
                let effective_time = self.effective_time().await?;
                Ok(Ok(Some(Switched { token, effective_time })))
            }
        }
    }
}
