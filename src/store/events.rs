//! Writes the audit log: every mutation of a token appends to `token_events` in its own transaction.
//! The verbs of a transaction that do so.

use sqlx::types::Json;
use time::OffsetDateTime;

use super::pooling::Transaction;
use super::{StoreError, rows};
use crate::domain::audit_context::{self, ActingUser};
use crate::domain::event::{EventKind, FieldChange, field_changes};
use crate::domain::{Principal, RevokeReason, Token};
use crate::secret::TokenId;

impl Transaction {
    /// Appends one event, at the time of the change itself, with the differences from `old`.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_event(
        &mut self,
        kind: EventKind,
        (old, token): (Option<&Token>, &Token),
        actor: &Principal,
        event_time: OffsetDateTime,
    ) -> Result<(), StoreError> {
        append(self, kind, token, &field_changes(old, token), actor, event_time).await
    }

    /// Appends the event of a token that was disabled or enabled, with the reason, if one was given.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_disabling(
        &mut self,
        kind: EventKind,
        (old, token): (&Token, &Token),
        reason: &RevokeReason,
        actor: &Principal,
        event_time: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let mut changes = field_changes(Some(old), token);
        changes.extend(given("disable_reason", reason));
        append(self, kind, token, &changes, actor, event_time).await
    }

    /// Appends a revocation event for each of these tokens, which are revoked, all with the same reason.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_revocations(
        &mut self,
        ids: &[TokenId],
        reason: &RevokeReason,
        actor: &Principal,
    ) -> Result<(), StoreError> {
        self.note_change();
        let context = audit_context::current();
        let trace_id = context.trace_id.map(|id| id.0.to_vec());
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
            context.acting_user.as_ref().map(ActingUser::as_str),
            trace_id.as_deref(),
            Json(given("revoke_reason", reason)) as _
        )
        .execute(self)
        .await?;
        Ok(())
    }
}

async fn append(
    transaction: &mut Transaction,
    kind: EventKind,
    token: &Token,
    changes: &[FieldChange],
    actor: &Principal,
    event_time: OffsetDateTime,
) -> Result<(), StoreError> {
    transaction.note_change();
    let context = audit_context::current();
    let trace_id = context.trace_id.map(|id| id.0.to_vec());
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
        context.acting_user.as_ref().map(ActingUser::as_str),
        trace_id.as_deref(),
        Json(changes) as _
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Returns the audit entry of a reason, if one was given.
fn given(field: &str, reason: &RevokeReason) -> Vec<FieldChange> {
    let new = Some(reason.as_str().to_owned()).filter(|text| !text.is_empty());
    let change = new.map(|new| FieldChange { field: field.to_owned(), old: None, new: Some(new) });
    change.into_iter().collect()
}
