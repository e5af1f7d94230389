//! Families: a token, what it was rotated from and what was rotated from it. Each row records its own
//! position in the family, so that members may be deleted. Called by rotation, revocation and reuse
//! detection.

use uuid::Uuid;

use super::StoreError;
use super::pooling::Transaction;
use super::rows::{self, TokenRow, select_tokens};
use crate::domain::Token;
use crate::secret::TokenId;

/// A token's position in its family.
#[derive(Debug)]
pub(super) struct Membership {
    /// The family; `None`: the token has not taken part in any rotation.
    family_id: Option<Uuid>,
    generation: i64,
    superseded_by: Option<Uuid>,
}

/// A locked member of a family.
#[derive(Debug)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: TokenId,
    /// Whether it is revoked already.
    pub(super) is_revoked: bool,
    /// The token; `None`: its row cannot be read, which must not prevent revoking it and the others.
    pub(super) token: Option<Token>,
}

impl From<TokenRow> for Member {
    fn from(row: TokenRow) -> Self {
        let (id, is_revoked) = (rows::token_id(row.id), row.is_revoked());
        Self { id, is_revoked, token: row.try_into().ok() }
    }
}

impl Membership {
    /// Returns the id of the token's successor, which may have been deleted.
    pub(super) fn successor(&self) -> Option<TokenId> {
        self.superseded_by.map(rows::token_id)
    }
}

/// Reads a locked token's position in its family; `None`: there is no such token.
pub(super) async fn membership(
    transaction: &mut Transaction,
    id: TokenId,
) -> Result<Option<Membership>, StoreError> {
    let found = sqlx::query_as!(
        Membership,
        "SELECT family_id, generation, superseded_by FROM tokens WHERE id = $1",
        rows::uuid(id)
    );
    Ok(found.fetch_optional(transaction).await?)
}

/// Locks all tokens rotated from a locked token, oldest first.
pub(super) async fn lock_line(transaction: &mut Transaction, id: TokenId) -> Result<Vec<Member>, StoreError> {
    match membership(transaction, id).await? {
        Some(Membership { family_id: Some(family), generation, .. }) => {
            lock_behind(transaction, family, generation).await
        }
        // A first rotation would have waited for its lock.
        _ => Ok(Vec::new()),
    }
}

/// Locks the existing members of a token's family, oldest first, including the token itself.
pub(super) async fn lock_family(
    transaction: &mut Transaction,
    id: TokenId,
) -> Result<Vec<Member>, StoreError> {
    match membership(transaction, id).await?.and_then(|found| found.family_id) {
        Some(family) => lock_behind(transaction, family, -1).await,
        None => Ok(Vec::new()),
    }
}

/// Locks the existing members of a family after a generation.
async fn lock_behind(
    transaction: &mut Transaction,
    family: Uuid,
    mut generation: i64,
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
        generation = last.map_or(i64::MAX, |last| last.generation);
    }
}
