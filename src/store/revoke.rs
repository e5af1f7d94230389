//! The steps of a transaction that revoke tokens, and the reads before them. Called by the
//! revoke, reuse and enforcement actions.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::events::{self, By};
use super::rows::{self, TokenRow, token_query};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::domain::event::EventKind;
use crate::domain::{Owner, Principal, ReservedScope, ReservedScopes, RevokeReason, Scope, Scopes, Token};
use crate::secret::TokenId;

/// Callback that receives the tokens that are about to change, before the commit, so that caches can
/// drop them even when the outcome is not known.
pub type OnChange<'a> = &'a (dyn Fn(&[TokenId]) + Send + Sync);

impl Store {
    /// Returns whether all tokens rotated from a token, in any number of steps, are revoked.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn successors_are_revoked(&self, id: TokenId) -> Result<bool, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"WITH RECURSIVE line AS (
                       SELECT id, revoke_time FROM tokens WHERE rotated_from = $1
                       UNION ALL
                       SELECT t.id, t.revoke_time FROM tokens t JOIN line ON t.rotated_from = line.id)
                   SELECT NOT EXISTS (SELECT FROM line WHERE revoke_time IS NULL) AS "all!""#,
                rows::uuid(id)
            );
            Ok(row.fetch_one(self.single()?).await?.all)
        })
        .await
    }

    /// Returns whether a user has a token that is not revoked.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn has_unrevoked_tokens(&self, owner: Owner<'_>) -> Result<bool, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT EXISTS (SELECT FROM tokens
                       WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1
                           AND user_id = $2 AND owner_kind = $3 AND revoke_time IS NULL) AS "some!""#,
                owner.organization_id.as_str(),
                owner.user_id.as_str(),
                owner.kind.word()
            );
            Ok(row.fetch_one(self.single()?).await?.some)
        })
        .await
    }
}

impl Transaction {
    /// Revokes these locked tokens, at the time after their locks, and records an event for each. Returns the one with
    /// the id `target`, if it is among them. One statement: an urgent revocation waits for few.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn revoke_tokens(
        &mut self,
        ids: &[TokenId],
        target: TokenId,
        reason: &RevokeReason,
        actor: &Principal,
        now: OffsetDateTime,
    ) -> Result<Option<Token>, StoreError> {
        self.note_change();
        let by = By::now(actor);
        let uuids: Vec<Uuid> = ids.iter().copied().map(rows::uuid).collect();
        // The first time and reason stay, even if two transactions revoke it.
        let row = token_query!(
            query_scalar,
            "WITH revoked AS (
                 UPDATE tokens SET revoke_time = $3, revoke_reason = $2 WHERE id = ANY($1) AND revoke_time IS NULL
                 RETURNING *
             ), recorded AS (
                 INSERT INTO token_events (event_time, kind, token_id, organization_id, user_id, actor, acting_user,
                     attribution, trace_id, changes, owner_kind)
                 SELECT r.revoke_time, $4, r.id, r.organization_id, r.user_id, $5, coalesce($6, own.user_id),
                     coalesce($11, CASE WHEN own.user_id IS NOT NULL THEN 'proven' END), $7, $8,
                     -- As in append_revocations, no other kind, and of no other owner.
                     CASE WHEN r.owner_kind IN ('user', 'service') THEN r.owner_kind END
                 FROM revoked r LEFT JOIN tokens own ON own.id = $9 AND own.owner_kind = 'user'
                 WHERE r.organization_id <> '' AND r.user_id <> ''
                 ORDER BY r.create_time, r.id
             )
             SELECT",
            "(SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id),
             (SELECT r.refusal FROM token_refusals r WHERE r.token_id = t.id), NULL::timestamptz",
            [r#"AS "token!: TokenRow" FROM revoked t WHERE t.id = $10"#],
            &uuids,
            reason.as_str(),
            now,
            EventKind::Revoked.word(),
            by.actor,
            by.person,
            by.trace_id.as_deref(),
            Json(events::given("revoke_reason", reason)) as _,
            by.own,
            rows::uuid(target),
            by.attribution
        )
        .fetch_optional(self)
        .await?;
        row.map(Token::try_from).transpose()
    }

    /// Locks a user's tokens that are not revoked, in the order in which rotations lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_tokens_of_owner(&mut self, owner: Owner<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT count(*) FROM (
             SELECT FROM tokens
             WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
                 AND owner_kind = $3 AND revoke_time IS NULL
             ORDER BY create_time, id FOR UPDATE) AS locked",
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            owner.kind.word()
        )
        .fetch_one(self)
        .await?;
        Ok(())
    }

    /// Revokes a user's locked tokens, and returns their ids with all their reserved scopes. Records no
    /// events: see [`Self::append_revocations`].
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn revoke_tokens_of_owner(
        &mut self,
        owner: Owner<'_>,
        reason: &RevokeReason,
        now: OffsetDateTime,
    ) -> Result<(Vec<TokenId>, ReservedScopes), StoreError> {
        let rows = sqlx::query!(
            r#"UPDATE tokens SET revoke_time = $4, revoke_reason = $3
           WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
               AND owner_kind = $5 AND revoke_time IS NULL
           RETURNING id, ARRAY(SELECT scope FROM unnest(scopes) AS scope WHERE scope LIKE 'tokend:%')
               AS "reserved!""#,
            owner.organization_id.as_str(),
            owner.user_id.as_str(),
            reason.as_str(),
            now,
            owner.kind.word()
        )
        .fetch_all(self)
        .await?;
        let ids = rows.iter().map(|row| rows::token_id(row.id)).collect();
        Ok((ids, all_reserved(rows.iter().map(|row| &*row.reserved))))
    }
}

/// Returns all reserved scopes of tokens, each given by the texts of its own.
pub(super) fn all_reserved<'a>(tokens: impl Iterator<Item = &'a [String]>) -> ReservedScopes {
    tokens.filter(|texts| !texts.is_empty()).fold(ReservedScopes::default(), |all, texts| {
        let scopes = texts.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>();
        // Unreadable scopes may be any: only a caller that may revoke everything may revoke them.
        let scopes = scopes.and_then(Scopes::new).map(|scopes| scopes.reserved());
        all.and(scopes.unwrap_or_else(|_| [ReservedScope::Root].into_iter().collect()))
    })
}
