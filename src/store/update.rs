//! The transaction that changes a token. Called by the update action.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use super::columns::Time;
use super::events::{self, EventKind};
use super::locks::{lock_caller, lock_token};
use super::policies::{self, Terms};
use super::{Store, StoreError, roots, rows};
use crate::domain::root::{LastRoot, LastRootError, is_root};
use crate::domain::{Caller, CredentialError, OrganizationId, Token, UserId};
use crate::secret::TokenId;

/// The successor of a token.
#[derive(Debug, Clone, Copy)]
pub struct Successor {
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// Whether it, or one of its own successors, is neither revoked nor expired.
    pub lives: bool,
}

impl Store {
    /// Writes the token that `apply` makes of this user's token, with the caller judged again in this
    /// transaction, under the organization's terms; `apply` also gets the token's successor, if any.
    /// Returns the token with the time of judging. The inner result is the refusal of `apply`, of the
    /// caller, or of the last root token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; the outcome may be unknown then, and a retry is
    /// safe.
    pub async fn update_token<E: From<CredentialError> + From<LastRootError>>(
        &self,
        caller: &Caller,
        id: TokenId,
        owner: (&OrganizationId, &UserId),
        last_root: LastRoot,
        apply: impl Fn(&Caller, Option<&Token>, Option<Successor>, &Terms) -> Result<Token, E>,
    ) -> Result<Result<(Token, OffsetDateTime), E>, StoreError> {
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let policy = policies::hold(&mut transaction, owner.0).await?;
            policies::lock_owner(&mut transaction, &policy, owner.0, owner.1).await?;
            let caller = lock_caller(&mut transaction, caller, Some(id)).await?;
            let before = lock_token(&mut transaction, id).await?;
            let ends_root = before.as_ref().is_some_and(is_root);
            let turn = roots::lock_for(&mut transaction, ends_root, last_root).await?;
            let (caller, now) = match caller.judge(&mut transaction).await? {
                Ok(judged) => judged,
                Err(refusal) => return Ok(Err(refusal.into())),
            };
            let successor = sqlx::query!(
                r#"SELECT supersede_time AS "create_time!: Time", EXISTS (SELECT FROM tokens s
                           WHERE s.family_id = t.family_id AND s.generation > t.generation AND s.revoke_time IS NULL
                               AND (s.expire_time IS NULL OR s.expire_time > $2)) AS "lives!"
                   FROM tokens t WHERE id = $1 AND supersede_time IS NOT NULL"#,
                rows::uuid(id),
                now
            )
            .fetch_optional(&mut transaction)
            .await?
            // Of a successor that cannot be read, only its existence counts.
            .map(|row| Successor { create_time: row.create_time.moment().unwrap_or(now), lives: row.lives });
            let terms = policies::terms(&mut transaction, (policy, now), owner, Some(id)).await?;
            let token = match apply(&caller, before.as_ref(), successor, &terms) {
                Ok(token) => token,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if turn
                && let Err(refusal) =
                    roots::demand_another(&mut transaction, &[id], Some(&token), now).await?
            {
                return Ok(Err(refusal.into()));
            }
            let scopes: Vec<String> = token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            let labels: BTreeMap<&str, &str> = token.labels.iter().collect();
            let allowed_cidrs: Vec<String> = token.allowed_cidrs.iter().map(ToString::to_string).collect();
            sqlx::query!(
                "UPDATE tokens SET name = $2, labels = $3, scopes = $4, expire_time = $5,
                     allowed_cidrs = $6::text[]::cidr[]
                 WHERE id = $1",
                rows::uuid(id),
                token.name.as_str(),
                Json(labels) as _,
                &scopes,
                token.expire_time,
                &allowed_cidrs
            )
            .execute(&mut transaction)
            .await?;
            let by = &caller.principal;
            events::append(&mut transaction, EventKind::Updated, before.as_ref(), &token, by, now).await?;
            transaction.commit().await?;
            Ok(Ok((token, now)))
        })
        .await
    }
}
