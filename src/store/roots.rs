//! The installation's active root tokens: counted before one is ended, by one transaction at a time.
//! Called by the transactions that end tokens, and by bootstrap.

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::Time;
use super::transaction::{Transaction, TransactionError};
use super::{StoreError, rows};
use crate::domain::root::{LastRoot, LastRootError, ROOT_MARGIN, is_missed};
use crate::domain::{Owner, Token};
use crate::secret::TokenId;

/// The advisory lock for creating the first root token, or ending one. The value is arbitrary.
const ROOTS_LOCK: i64 = 0x746f_6b65_6e64_0001;

/// Takes the lock of decisions that depend on the existing root tokens. Call it after all other locks:
/// a transaction that waits here does not block the holder. If two transactions each end one of the
/// last two, the second sees the first.
pub(super) async fn lock(transaction: &mut Transaction) -> Result<(), StoreError> {
    // A separate statement: what is read after it sees what was committed while it waited.
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", ROOTS_LOCK).execute(transaction).await?;
    Ok(())
}

impl Transaction {
    /// Takes the lock of the root tokens if one may end and the last one must be kept; returns whether
    /// it did. After all other locks.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_roots(&mut self, ends_root: bool, last_root: LastRoot) -> Result<bool, StoreError> {
        let locks = last_root == LastRoot::Refuse && ends_root;
        if locks {
            lock(self).await?;
        }
        Ok(locks)
    }

    /// Takes the lock of the root tokens if a user has some and the last one must be kept; returns
    /// those tokens. After the locks of all the user's tokens.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_roots_of_owner(
        &mut self,
        owner: Owner<'_>,
        last_root: LastRoot,
    ) -> Result<Vec<TokenId>, StoreError> {
        if last_root == LastRoot::Allow {
            return Ok(Vec::new());
        }
        let found = sqlx::query!(
            "SELECT id FROM tokens WHERE scopes @> ARRAY['tokend:root'] AND organization_id = $1 AND user_id = $2
             AND owner_kind = $3 AND revoke_time IS NULL",
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word()
        );
        let found = found.fetch_all(&mut *self).await?;
        if !found.is_empty() {
            lock(self).await?;
        }
        Ok(found.into_iter().map(|row| rows::token_id(row.id)).collect())
    }

    /// Checks that after these locked tokens end, a root token remains active for a while; `heir`: the
    /// token that replaces them. Under the lock of the root tokens, with the time read after it.
    ///
    /// # Errors
    /// [`LastRootError`]: none remains; [`StoreError`], as for every statement.
    pub async fn require_another_root(
        &mut self,
        ending: &[TokenId],
        heir: Option<&Token>,
        now: OffsetDateTime,
    ) -> Result<(), TransactionError> {
        if ending.is_empty() {
            return Ok(());
        }
        let ending: Vec<Uuid> = ending.iter().copied().map(rows::uuid).collect();
        // Superseded tokens do not count: their successors do.
        let roots = sqlx::query!(
            r#"SELECT max(ending) FILTER (WHERE id = ANY($1)) AS "lost: Time",
               max(ending) FILTER (WHERE NOT id = ANY($1)) AS "left: Time"
           FROM (SELECT id, least(coalesce(expire_time, 'infinity'), $3) AS ending FROM tokens
               WHERE scopes @> ARRAY['tokend:root'] AND revoke_time IS NULL AND disable_time IS NULL
                   AND user_disable_time IS NULL AND superseded_by IS NULL AND (expire_time IS NULL OR expire_time > $2)) AS active"#,
            &ending,
            now,
            now.saturating_add(ROOT_MARGIN)
        )
        .fetch_one(self)
        .await?;
        let (lost, left) = (roots.lost.and_then(Time::moment), roots.left.and_then(Time::moment));
        if is_missed(lost, left, heir, now) { Err(LastRootError.into()) } else { Ok(()) }
    }
}
