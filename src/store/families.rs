//! Families: a token, what it was rotated from and what was rotated from it. Each row says of itself where it stands,
//! so that members may have been deleted. Called by what rotates, revokes and notices reuse.

use uuid::Uuid;

use super::StoreError;
use super::pooling::Transaction;
use super::rows::{self, TokenRow, select_tokens};
use crate::domain::Token;
use crate::secret::TokenId;

/// Where a token stands in its family.
#[derive(Debug)]
pub(super) struct Membership {
    /// The family; `None`: the token is alone.
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
    /// What it is; `None`: that cannot be read, which keeps nobody from revoking it and those beside it.
    pub(super) token: Option<Token>,
}

impl From<TokenRow> for Member {
    fn from(row: TokenRow) -> Self {
        let (id, is_revoked) = (rows::token_id(row.id), row.is_revoked());
        Self { id, is_revoked, token: row.try_into().ok() }
    }
}

impl Membership {
    /// Returns what was put in the token's place; it may be gone.
    pub(super) fn successor(&self) -> Option<TokenId> {
        self.superseded_by.map(rows::token_id)
    }
}

/// Reads where a locked token stands; `None`: there is no such token.
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

/// Locks what was rotated from a locked token, oldest first, until nothing more can be.
pub(super) async fn lock_line(transaction: &mut Transaction, id: TokenId) -> Result<Vec<Member>, StoreError> {
    match membership(transaction, id).await? {
        Some(Membership { family_id: Some(family), generation, .. }) => {
            lock_behind(transaction, family, generation).await
        }
        // Its first rotation would have waited for its lock.
        _ => Ok(Vec::new()),
    }
}

/// Locks what is there of a token's family, oldest first, itself included.
pub(super) async fn lock_family(
    transaction: &mut Transaction,
    id: TokenId,
) -> Result<Vec<Member>, StoreError> {
    match membership(transaction, id).await?.and_then(|found| found.family_id) {
        Some(family) => lock_behind(transaction, family, -1).await,
        None => Ok(Vec::new()),
    }
}

/// Locks what is there of a family behind a generation.
async fn lock_behind(
    transaction: &mut Transaction,
    family: Uuid,
    mut generation: i64,
) -> Result<Vec<Member>, StoreError> {
    let mut line: Vec<Member> = Vec::new();
    loop {
        // Locked together, in the order in which rotations lock; then looked again, since the last of them may
        // have been rotated before its lock was ours.
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
