//! The transaction that replaces an old token by a new one. Called by the rotate action.

use time::OffsetDateTime;

use super::events::{self, EventKind};
use super::locks::{lock_caller, lock_token};
use super::policies::{self, Terms};
use super::requests::{self, NewRequest, Stored};
use super::tokens::{NewToken, insert};
use super::{Store, StoreError, families, roots, rows};
use crate::domain::root::{LastRoot, LastRootError, is_root};
use crate::domain::{Caller, CredentialError, Token};
use crate::secret::TokenId;

/// A token to be stored as the successor of another.
#[derive(Debug)]
pub struct Rotation {
    /// The new token.
    pub new: NewToken,
    /// When the old token expires.
    pub old_expire_time: OffsetDateTime,
}

/// The token to rotate, locked.
#[derive(Debug, Clone, Copy)]
pub struct Rotatable<'a> {
    /// The token, if there is one.
    pub token: Option<&'a Token>,
    /// Its existing successor.
    pub successor: Option<TokenId>,
    /// The constraints on the new token.
    pub terms: &'a Terms,
}

impl Store {
    /// Replaces `old` by the token that `prepare` makes, with the caller judged again in this
    /// transaction; or returns the earlier result of the same request. `old` is read again: only its id
    /// and its owner are used. The inner result is the refusal of `prepare`, of the caller, or of the
    /// last root token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; nothing is stored then, unless the commit's outcome is
    /// unknown.
    pub async fn rotate_token<E: From<CredentialError> + From<LastRootError>>(
        &self,
        caller: &Caller,
        old: &Token,
        request: Option<&NewRequest>,
        last_root: LastRoot,
        prepare: impl Fn(&Caller, Rotatable<'_>) -> Result<Rotation, E>,
    ) -> Result<Result<Stored<Token>, E>, StoreError> {
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let owner = (&old.organization_id, &old.user_id);
            let policy = policies::hold(&mut transaction, owner.0).await?;
            policies::lock_owner(&mut transaction, &policy, owner.0, owner.1).await?;
            let caller = lock_caller(&mut transaction, caller, Some(old.id)).await?;
            let known = requests::claim(&mut transaction, request).await?;
            let token = if known.is_none() { lock_token(&mut transaction, old.id).await? } else { None };
            let ends_root = token.as_ref().is_some_and(is_root);
            let turn = roots::lock_for(&mut transaction, ends_root, last_root).await?;
            let (caller, now) = match caller.judge(&mut transaction).await? {
                Ok(judged) => judged,
                Err(refusal) => return Ok(Err(refusal.into())),
            };
            if let Some(known) = known {
                transaction.commit_unchanged().await?;
                return Ok(Ok(Stored::Known(caller, Box::new(known))));
            }
            let membership = families::membership(&mut transaction, old.id).await?;
            let successor = membership.and_then(|found| found.successor());
            let terms = policies::terms(&mut transaction, (policy, now), owner, Some(old.id)).await?;
            let Rotation { new, old_expire_time } =
                match prepare(&caller, Rotatable { token: token.as_ref(), successor, terms: &terms }) {
                    Ok(rotation) => rotation,
                    Err(refusal) => return Ok(Err(refusal)),
                };
            if turn
                && let Err(refusal) =
                    roots::demand_another(&mut transaction, &[old.id], Some(&new.token), now).await?
            {
                return Ok(Err(refusal.into()));
            }
            sqlx::query!(
                "UPDATE tokens SET expire_time = $2, family_id = coalesce(family_id, id), superseded_by = $3,
                     supersede_time = $4
                 WHERE id = $1",
                rows::uuid(old.id),
                old_expire_time,
                rows::uuid(new.token.id),
                new.token.create_time
            )
            .execute(&mut transaction)
            .await?;
            insert(&mut transaction, &new).await?;
            // As it is under its lock: what was read before may have changed since.
            let held = token.as_ref().unwrap_or(old);
            let ending = Token { expire_time: Some(old_expire_time), ..held.clone() };
            let by = &caller.principal;
            events::append(&mut transaction, EventKind::Rotated, Some(held), &ending, by, now).await?;
            events::append(&mut transaction, EventKind::Created, None, &new.token, by, now).await?;
            transaction.commit().await?;
            Ok(Ok(Stored::New(new.token)))
        })
        .await
    }
}
