//! The audit log's writing side: every mutation of a token appends to `token_events` in its own
//! transaction. Called by the other files of the store.

use sqlx::PgConnection;

use super::{StoreError, rows};
use crate::domain::{Principal, Token};

/// What happened to a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventKind {
    Created,
    Updated,
    Revoked,
}

impl EventKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
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
