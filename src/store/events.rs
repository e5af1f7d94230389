//! Writes the audit log: every mutation of a token appends to `token_events` in its own transaction.
//! The steps of a transaction that do so.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::transaction::Transaction;
use super::{StoreError, rows};
use crate::domain::audit_context::{self, Acting, ActingUser};
use crate::domain::event::{Attribution, EventKind, FieldChange, field_changes};
use crate::domain::{Owner, PlanName, Principal, RevokeReason, Token};
use crate::secret::TokenId;

/// Who did it, as the log has it. The person is the one of a portal session, else the one that the caller names, else the
/// user of its own token, which is read in the statement that appends.
pub(super) struct By {
    pub(super) actor: String,
    pub(super) person: Option<String>,
    /// How that person is known.
    pub(super) attribution: Option<&'static str>,
    /// The caller's token, if its user is the person.
    pub(super) own: Option<Uuid>,
    pub(super) trace_id: Option<Vec<u8>>,
}

impl By {
    /// Returns it for the current call.
    pub(super) fn now(actor: &Principal) -> Self {
        let context = audit_context::current();
        let own = match (&context.acting, actor) {
            (Acting::Caller, Principal::Token(id)) => Some(rows::uuid(*id)),
            _ => None,
        };
        let named = match (&context.acting, actor) {
            (_, Principal::Portal(portal)) => {
                Some((portal.terms.user_id.as_str().to_owned(), Attribution::Vouched))
            }
            (Acting::Claimed(user), _) => Some((ActingUser::as_str(user).to_owned(), Attribution::Claimed)),
            (Acting::Caller | Acting::Nobody, _) => None,
        };
        let (person, attribution) = named.map(|(person, known)| (person, known.word())).unzip();
        let trace_id = context.trace_id.map(|id| id.0.to_vec());
        Self { actor: actor.to_string(), person, attribution, own, trace_id }
    }
}

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
        append_one(self, kind, token, &field_changes(old, token), actor, event_time).await
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
        append_one(self, kind, token, &changes, actor, event_time).await
    }

    /// Appends an event of a user, not of a token.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_user_event(
        &mut self,
        event: (EventKind, &[FieldChange]),
        owner: Owner<'_>,
        actor: &Principal,
        event_time: OffsetDateTime,
    ) -> Result<(), StoreError> {
        append(self, event, (owner, &[None]), actor, event_time).await
    }

    /// Appends the same event for each of these tokens of a user.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_events_of_owner(
        &mut self,
        event: (EventKind, &[FieldChange]),
        (owner, ids): (Owner<'_>, &[TokenId]),
        actor: &Principal,
        event_time: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| Some(rows::uuid(*id))).collect();
        append(self, event, (owner, &ids), actor, event_time).await
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
        append_to_tokens(self, ids, (EventKind::Revoked, &given("revoke_reason", reason)), None, actor).await
    }

    /// Appends an event for each of these tokens, which have lost their plan.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn append_plan_removals(
        &mut self,
        ids: &[TokenId],
        plan: &PlanName,
        actor: &Principal,
        event_time: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let old = Some(plan.as_str().to_owned());
        let changes = [FieldChange { field: "plan".to_owned(), old, new: None }];
        append_to_tokens(self, ids, (EventKind::Updated, &changes), Some(event_time), actor).await
    }
}

/// Appends the same event for each of these tokens, of any owners; without a time, at that of the token's revocation.
async fn append_to_tokens(
    transaction: &mut Transaction,
    ids: &[TokenId],
    (kind, changes): (EventKind, &[FieldChange]),
    event_time: Option<OffsetDateTime>,
    actor: &Principal,
) -> Result<(), StoreError> {
    transaction.note_change();
    let by = By::now(actor);
    let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
    sqlx::query!(
        "INSERT INTO token_events
             (event_time, kind, token_id, organization_id, user_id, actor, acting_user, attribution, trace_id, changes,
              owner_kind)
         SELECT coalesce($9, t.revoke_time), $1, t.id, t.organization_id, t.user_id, $3, coalesce($4, own.user_id),
             coalesce($8, CASE WHEN own.user_id IS NOT NULL THEN 'proven' END), $5, $6,
             -- No other kind can be written.
             CASE WHEN t.owner_kind IN ('user', 'service') THEN t.owner_kind END
         FROM tokens t LEFT JOIN tokens own ON own.id = $7 AND own.owner_kind = 'user'
         WHERE t.id = ANY($2)
             -- Of others no event can be written, and one would keep back the whole family.
             AND t.organization_id <> '' AND t.user_id <> ''
         ORDER BY t.create_time, t.id",
        kind.word(),
        &ids,
        by.actor,
        by.person,
        by.trace_id.as_deref(),
        Json(changes) as _,
        by.own,
        by.attribution,
        event_time
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn append_one(
    transaction: &mut Transaction,
    kind: EventKind,
    token: &Token,
    changes: &[FieldChange],
    actor: &Principal,
    event_time: OffsetDateTime,
) -> Result<(), StoreError> {
    let ids = [Some(rows::uuid(token.id))];
    append(transaction, (kind, changes), (token.owner(), &ids), actor, event_time).await
}

/// Appends the same event for each of these tokens of an owner; `None` stands for the owner itself.
async fn append(
    transaction: &mut Transaction,
    (kind, changes): (EventKind, &[FieldChange]),
    (owner, ids): (Owner<'_>, &[Option<Uuid>]),
    actor: &Principal,
    event_time: OffsetDateTime,
) -> Result<(), StoreError> {
    transaction.note_change();
    let by = By::now(actor);
    sqlx::query!(
        "INSERT INTO token_events
             (event_time, kind, token_id, organization_id, user_id, actor, acting_user, attribution, trace_id, changes,
              owner_kind)
         SELECT $1, $2, changed.id, $4, $5, $6, coalesce($7, own.user_id),
             coalesce($12, CASE WHEN own.user_id IS NOT NULL THEN 'proven' END), $8, $9, $11
         FROM unnest($3::uuid[]) AS changed (id)
             LEFT JOIN tokens own ON own.id = $10 AND own.owner_kind = 'user'
         ORDER BY changed.id",
        event_time,
        kind.word(),
        ids as _,
        owner.organization_id.as_str(),
        owner.user_id.as_str(),
        by.actor,
        by.person,
        by.trace_id.as_deref(),
        Json(changes) as _,
        by.own,
        owner.kind.word(),
        by.attribution
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Returns the audit entry of a reason, if one was given.
pub(super) fn given(field: &str, reason: &RevokeReason) -> Vec<FieldChange> {
    let new = Some(reason.as_str().to_owned()).filter(|text| !text.is_empty());
    let change = new.map(|new| FieldChange { field: field.to_owned(), old: None, new: Some(new) });
    change.into_iter().collect()
}
