//! Writes the audit log: every mutation of a token appends to `token_events` in its own transaction.
//! Called by the other files of the store.

use sqlx::types::Json;
use time::OffsetDateTime;

use super::pooling::Transaction;
use super::{StoreError, rows};
use crate::domain::audit_context::{self, ActingUser};
pub(super) use crate::domain::event::EventKind;
use crate::domain::event::{FieldChange, field_changes};
use crate::domain::{Principal, Token};
use crate::secret::TokenId;

/// Appends one event, at the time of the change itself, with the differences from `old`.
pub(super) async fn append(
    transaction: &mut Transaction,
    kind: EventKind,
    old: Option<&Token>,
    token: &Token,
    actor: &Principal,
    event_time: OffsetDateTime,
) -> Result<(), StoreError> {
    let changes = field_changes(old, token);
    append_changes(transaction, kind, token, &changes, actor, event_time).await
}

/// Appends one event with these changes.
pub(super) async fn append_changes(
    transaction: &mut Transaction,
    kind: EventKind,
    token: &Token,
    changes: &[FieldChange],
    actor: &Principal,
    event_time: OffsetDateTime,
) -> Result<(), StoreError> {
    let provenance = audit_context::current();
    let trace_id = provenance.trace_id.map(|id| id.0.to_vec());
    sqlx::query!(
        "INSERT INTO token_events
             (event_time, kind, token_id, organization_id, user_id, actor, acting_user, trace_id, changes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        event_time,
        kind.word(),
        rows::uuid(token.id),
        token.organization_id.as_str(),
        token.user_id.as_str(),
        actor.to_string(),
        provenance.acting_user.as_ref().map(ActingUser::as_str),
        trace_id.as_deref(),
        Json(changes) as _
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Appends a revocation event for each of these tokens, all with the same changes.
pub(super) async fn append_revocations(
    transaction: &mut Transaction,
    ids: &[TokenId],
    changes: &[FieldChange],
    actor: &Principal,
) -> Result<(), StoreError> {
    let provenance = audit_context::current();
    let trace_id = provenance.trace_id.map(|id| id.0.to_vec());
    let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
    sqlx::query!(
        "INSERT INTO token_events
             (event_time, kind, token_id, organization_id, user_id, actor, acting_user, trace_id, changes)
         SELECT revoke_time, $1, id, organization_id, user_id, $3, $4, $5, $6
         FROM tokens WHERE id = ANY($2)
             -- Of others no event can be written, and one would keep back the whole family.
             AND organization_id <> '' AND user_id <> ''
         ORDER BY create_time, id",
        EventKind::Revoked.word(),
        &ids,
        actor.to_string(),
        provenance.acting_user.as_ref().map(ActingUser::as_str),
        trace_id.as_deref(),
        Json(changes) as _
    )
    .execute(transaction)
    .await?;
    Ok(())
}
