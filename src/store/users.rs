//! Disabled users: the steps of a transaction that disable and enable one with all tokens. Called by the actions that do
//! so, and by those that create tokens. All are called under the lock of the owner.

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::Time;
use super::families::Member;
use super::revoke::all_reserved;
use super::rows::{self, TokenRow, token_query};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::domain::users::Disabling;
use crate::domain::{Owner, ReservedScopes};
use crate::secret::TokenId;

impl Store {
    /// Returns whether a user is disabled, as far as a read tells that waits for no lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn is_disabled(&self, owner: Owner<'_>) -> Result<bool, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT EXISTS (SELECT FROM disabled_users
                       WHERE organization_id = $1 AND user_id = $2 AND owner_kind = $3) AS "disabled!""#,
                owner.organization_id.as_str(),
                owner.user_id.as_str(),
                owner.kind.word()
            );
            Ok(row.fetch_one(self.single()?).await?.disabled)
        })
        .await
    }
}

impl Transaction {
    /// Reads how a user is disabled; `None`: the user is not. Under the lock of the owner, in a later statement.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn disabling(&mut self, owner: Owner<'_>) -> Result<Option<Disabling>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT disable_time AS "disable_time!: Time", disabled_by, reason FROM disabled_users
               WHERE organization_id = $1 AND user_id = $2 AND owner_kind = $3"#,
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word()
        );
        let Some(row) = row.fetch_optional(self).await? else { return Ok(None) };
        Ok(Some(Disabling {
            // One that cannot be read disables all the same.
            disable_time: row.disable_time.moment().unwrap_or(OffsetDateTime::UNIX_EPOCH),
            disabled_by: row.disabled_by,
            reason: row.reason,
        }))
    }

    /// Records that a user is disabled, and appends the user's event. Its tokens: [`Self::disable_tokens_of_owner`].
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn insert_disabling(
        &mut self,
        owner: Owner<'_>,
        disabling: &Disabling,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO disabled_users (organization_id, user_id, owner_kind, disable_time, disabled_by, reason)
             VALUES ($1, $2, $3, $4, $5, $6)",
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word(),
            disabling.disable_time,
            disabling.disabled_by,
            disabling.reason
        )
        .execute(self)
        .await?;
        Ok(())
    }

    /// Removes the record that a user is disabled.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn delete_disabling(&mut self, owner: Owner<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "DELETE FROM disabled_users WHERE organization_id = $1 AND user_id = $2 AND owner_kind = $3",
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word()
        )
        .execute(self)
        .await?;
        Ok(())
    }

    /// Marks a user's locked tokens as those of a disabled user, and returns the ids of those that were not marked,
    /// with all reserved scopes of the user's tokens. Revoked ones are left alone; expired ones are not, since the
    /// clock that says so may be set back.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn disable_tokens_of_owner(
        &mut self,
        owner: Owner<'_>,
        disable_time: OffsetDateTime,
    ) -> Result<(Vec<TokenId>, ReservedScopes), StoreError> {
        let rows = sqlx::query!(
            r#"WITH marked AS (
                   UPDATE tokens SET user_disable_time = $4
                   WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1
                       AND user_id = $2 AND owner_kind = $3 AND revoke_time IS NULL AND user_disable_time IS NULL
                   RETURNING id)
               SELECT (SELECT coalesce(array_agg(id), '{}') FROM marked) AS "ids!",
                   ARRAY(SELECT DISTINCT scope FROM tokens CROSS JOIN unnest(scopes) AS scope
                       WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1
                           AND user_id = $2 AND owner_kind = $3 AND revoke_time IS NULL
                           AND scope LIKE 'tokend:%') AS "reserved!""#,
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word(),
            disable_time
        )
        .fetch_one(self)
        .await?;
        let ids = rows.ids.into_iter().map(rows::token_id).collect();
        Ok((ids, all_reserved(std::iter::once(&*rows.reserved))))
    }

    /// Removes the marks of a user's tokens, and returns the ids of those that are not revoked.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn enable_tokens_of_owner(&mut self, owner: Owner<'_>) -> Result<Vec<TokenId>, StoreError> {
        let rows = sqlx::query!(
            r#"UPDATE tokens SET user_disable_time = NULL
               WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
                   AND owner_kind = $3 AND user_disable_time IS NOT NULL
               RETURNING id, revoke_time IS NULL AS "unrevoked!""#,
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word()
        )
        .fetch_all(self)
        .await?;
        Ok(rows.into_iter().filter(|row| row.unrevoked).map(|row| rows::token_id(row.id)).collect())
    }

    /// Reads these locked tokens, in no order.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn read_members(&mut self, ids: &[TokenId]) -> Result<Vec<Member>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(rows::uuid).collect();
        let rows = token_query!(
            query_scalar,
            "SELECT",
            "NULL::timestamptz, NULL::jsonb, NULL::timestamptz",
            [r#"AS "token!: TokenRow" FROM tokens t WHERE id = ANY($1)"#],
            &ids
        );
        Ok(rows.fetch_all(self).await?.into_iter().map(Member::from).collect())
    }
}
