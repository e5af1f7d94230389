//! The audit log's writing side: every mutation of a token appends to `token_events` in its own
//! transaction. Called by the other files of the store.

use sqlx::PgConnection;

use super::{StoreError, rows};
use crate::domain::{Principal, Token};
use crate::secret::TokenId;

/// What happened to a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventKind {
    Created,
    Updated,
    Rotated,
    Revoked,
}

impl EventKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
        }
    }
}

/// Appends one event, at the transaction's time.
pub(super) async fn append(
    transaction: &mut PgConnection,
    kind: EventKind,
    token: &Token,
    actor: &Principal,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO token_events (kind, token_id, organization_id, user_id, actor)
         VALUES ($1, $2, $3, $4, $5)",
        kind.word(),
        rows::uuid(token.id),
        token.organization_id.as_str(),
        token.user_id.as_str(),
        actor.to_string()
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Appends an event for each of these tokens, at the transaction's time.
pub(super) async fn append_all(
    transaction: &mut PgConnection,
    kind: EventKind,
    ids: &[TokenId],
    actor: &Principal,
) -> Result<(), StoreError> {
    let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
    sqlx::query!(
        "INSERT INTO token_events (kind, token_id, organization_id, user_id, actor)
         SELECT $1, id, organization_id, user_id, $3 FROM tokens WHERE id = ANY($2) ORDER BY create_time, id",
        kind.word(),
        &ids,
        actor.to_string()
    )
    .execute(transaction)
    .await?;
    Ok(())
}
