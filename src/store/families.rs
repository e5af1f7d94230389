//! Families: a token, what it was rotated from and what was rotated from it. Each row records its own
//! position in the family, so that members may be deleted. Called by rotation, revocation and reuse
//! detection.

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::Time;
use super::locks::LockedTarget;
use super::rows::{self, TokenRow, select_tokens};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::domain::Token;
use crate::secret::TokenId;

/// A token's position in its family.
#[derive(Debug)]
struct Membership {
    /// The family; `None`: the token has not taken part in any rotation.
    family_id: Option<Uuid>,
    generation: i32,
    superseded_by: Option<Uuid>,
}

/// A locked member of a family.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub id: TokenId,
    /// Whether it is revoked already.
    pub is_revoked: bool,
    /// The token; `None`: its row cannot be read, which must not prevent revoking it and the others.
    pub token: Option<Token>,
}

impl From<TokenRow> for Member {
    fn from(row: TokenRow) -> Self {
        let (id, is_revoked) = (rows::token_id(row.id), row.is_revoked());
        Self { id, is_revoked, token: row.try_into().ok() }
    }
}

/// The successor of a token.
#[derive(Debug, Clone, Copy)]
pub struct Successor {
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// Whether it, or one of its own successors, is neither revoked nor expired.
    pub is_active: bool,
}

/// Reads a locked token's position in its family; `None`: there is no such token.
async fn membership(transaction: &mut Transaction, id: TokenId) -> Result<Option<Membership>, StoreError> {
    let found = sqlx::query_as!(
        Membership,
        "SELECT family_id, generation, superseded_by FROM tokens WHERE id = $1",
        rows::uuid(id)
    );
    Ok(found.fetch_optional(transaction).await?)
}

impl Store {
    /// Reads the existing members of a token's family, oldest first, including the token itself: those that are at most
    /// `generations` away from it. Those that cannot be read are left out.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_family(&self, id: TokenId, generations: i32) -> Result<Vec<Token>, StoreError> {
        self.within(async {
            let rows = select_tokens!(
                "WHERE family_id = (SELECT o.family_id FROM tokens o WHERE o.id = $1)
                     AND generation BETWEEN (SELECT o.generation FROM tokens o WHERE o.id = $1) - $2
                         AND (SELECT o.generation FROM tokens o WHERE o.id = $1) + $2
                 ORDER BY generation",
                rows::uuid(id),
                generations
            )
            .fetch_all(self.single()?)
            .await?;
            Ok(rows.into_iter().filter_map(|row| row.try_into().ok()).collect())
        })
        .await
    }
}

impl Transaction {
    /// Locks all tokens rotated from a locked token, oldest first.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_successors(&mut self, target: &LockedTarget) -> Result<Vec<Member>, StoreError> {
        match target.position {
            Some((family, generation)) => lock_generations_after(self, family, generation).await,
            // A first rotation would have waited for its lock.
            None => Ok(Vec::new()),
        }
    }

    /// Locks the existing members of a token's family, oldest first, including the token itself.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_family(&mut self, id: TokenId) -> Result<Vec<Member>, StoreError> {
        match membership(self, id).await?.and_then(|found| found.family_id) {
            Some(family) => lock_generations_after(self, family, -1).await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns the id of a locked token's successor, which may have been deleted.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn successor_id(&mut self, id: TokenId) -> Result<Option<TokenId>, StoreError> {
        Ok(membership(self, id).await?.and_then(|found| found.superseded_by).map(rows::token_id))
    }

    /// Reads the successor of a locked token at `now`.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn successor(
        &mut self,
        id: TokenId,
        now: OffsetDateTime,
    ) -> Result<Option<Successor>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT supersede_time AS "create_time!: Time", EXISTS (SELECT FROM tokens s
                           WHERE s.family_id = t.family_id AND s.generation > t.generation AND s.revoke_time IS NULL
                               AND (s.expire_time IS NULL OR s.expire_time > $2)) AS "lives!"
                   FROM tokens t WHERE id = $1 AND supersede_time IS NOT NULL"#,
            rows::uuid(id),
            now
        );
        // Of a successor that cannot be read, only its existence counts.
        Ok(row.fetch_optional(self).await?.map(|row| Successor {
            create_time: row.create_time.moment().unwrap_or(now),
            is_active: row.lives,
        }))
    }

    /// Marks a locked token as superseded by a new one, and stores when it expires.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn supersede(&mut self, old: &Token, new: &Token) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE tokens SET expire_time = $2, family_id = coalesce(family_id, id), superseded_by = $3,
                     supersede_time = $4
                 WHERE id = $1",
            rows::uuid(old.id),
            old.expire_time,
            rows::uuid(new.id),
            new.create_time
        )
        .execute(self)
        .await?;
        Ok(())
    }
}

/// Locks the existing members of a family after a generation.
async fn lock_generations_after(
    transaction: &mut Transaction,
    family: Uuid,
    mut generation: i32,
) -> Result<Vec<Member>, StoreError> {
    let mut line: Vec<Member> = Vec::new();
    loop {
        // Locked together, in the order in which rotations lock; then read again, because the last one
        // may have been rotated before this transaction got its lock.
        let found = select_tokens!(
            "WHERE family_id = $1 AND generation > $2 ORDER BY generation FOR UPDATE",
            family,
            generation
        )
        .fetch_all(&mut *transaction)
        .await?;
        let Some(last) = found.last().map(|row| row.id) else { return Ok(line) };
        line.extend(found.into_iter().map(Member::from));
        let last = membership(transaction, rows::token_id(last)).await?;
        generation = last.map_or(i32::MAX, |last| last.generation);
    }
}
