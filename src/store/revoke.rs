//! The transactions that revoke. Called by the revoke actions. They report the tokens that change
//! before they commit, so that caches can drop them even when the outcome is not known.

use time::OffsetDateTime;
use uuid::Uuid;

use super::families::lock_line;
use super::locks::{lock_caller, lock_token};
use super::pooling::Transaction;
use super::rows::{self, TokenRow, select_tokens};
use super::{Store, StoreError, USER_DEADLINE, events, owners, roots};
use crate::domain::event::FieldChange;
use crate::domain::root::{LastRoot, LastRootError, is_root};
use crate::domain::{
    Caller, CredentialError, OrganizationId, Principal, ReservedScope, ReservedScopes, RevokeReason, Scope,
    Scopes, Token, UserId,
};
use crate::secret::TokenId;

/// Which tokens a revocation covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The token and all tokens rotated from it, in any number of steps.
    Family,
    /// The token alone.
    OnlyThis,
}

/// A revocation: its token and options.
#[derive(Debug, Clone, Copy)]
pub struct Revocation<'a> {
    /// The token.
    pub id: TokenId,
    /// Which tokens it covers.
    pub extent: Extent,
    /// The reason.
    pub reason: &'a RevokeReason,
    /// What to do if this would end the last active root token.
    pub last_root: LastRoot,
}

/// A token to be revoked.
#[derive(Debug, Clone, Copy)]
pub enum Affected<'a> {
    /// There is no such token.
    Missing,
    /// This one.
    Token(&'a Token),
    /// One that cannot be read: it may have any scopes.
    Unreadable,
}

/// Callback that receives the tokens that are about to change.
pub type Touch<'a> = &'a (dyn Fn(&[TokenId]) + Send + Sync);

/// A token that is revoked, by this call or before it.
#[derive(Debug)]
pub struct Revoked {
    /// The token, with its first revocation.
    pub token: Token,
    /// From this time on no replica accepts it.
    pub effective_time: OffsetDateTime,
}

/// A user whose tokens are revoked.
#[derive(Debug)]
pub struct RevokedUser {
    /// How many tokens this call revoked.
    pub count: u64,
    /// From this time on no replica accepts any of them.
    pub effective_time: OffsetDateTime,
}

impl Store {
    /// Revokes the token with this id, and what was rotated from it, when `allow` permits each; one
    /// that is already revoked keeps its first time and reason. The inner result is the refusal of
    /// `allow`, of the caller, or of the last root token; `None`: no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; the outcome may be unknown then, and a retry is
    /// safe.
    pub async fn revoke_token<E: From<CredentialError> + From<LastRootError>>(
        &self,
        caller: &Caller,
        Revocation { id, extent, reason, last_root }: Revocation<'_>,
        allow: impl Fn(&Caller, Affected<'_>) -> Result<(), E>,
        touch: Touch<'_>,
    ) -> Result<Result<Option<Revoked>, E>, StoreError> {
        let revoked = self
            .retrying(async || {
                let mut transaction = self.begin().await?;
                let locked = lock_caller(&mut transaction, caller, Some(id)).await?;
                let target = lock_token(&mut transaction, id).await?;
                let (mut caller, mut now) = match locked.judge(&mut transaction).await? {
                    Ok(judged) => judged,
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                if let Err(refusal) =
                    allow(&caller, target.as_ref().map_or(Affected::Missing, Affected::Token))
                {
                    return Ok(Err(refusal));
                }
                let Some(target) = target else { return Ok(Ok(None)) };
                let line = match extent {
                    Extent::Family => lock_line(&mut transaction, id).await?,
                    Extent::OnlyThis => Vec::new(),
                };
                let members = line.iter().filter(|member| !member.is_revoked).map(|member| member.id);
                let own = Some(target.id).filter(|_| target.revoke_time.is_none());
                let ids: Vec<TokenId> = own.into_iter().chain(members).collect();
                let ends_root =
                    is_root(&target) || line.iter().any(|member| member.token.as_ref().is_none_or(is_root));
                let turn = roots::lock_for(&mut transaction, ends_root, last_root).await?;
                if !line.is_empty() || turn {
                    // The transaction may have waited for these locks, too.
                    (caller, now) = match locked.judge(&mut transaction).await? {
                        Ok(judged) => judged,
                        Err(refusal) => return Ok(Err(refusal.into())),
                    };
                }
                for member in &line {
                    let affected = member.token.as_ref().map_or(Affected::Unreadable, Affected::Token);
                    if let Err(refusal) = allow(&caller, affected) {
                        return Ok(Err(refusal));
                    }
                }
                if ids.is_empty() {
                    transaction.commit_unchanged().await?;
                    return Ok(Ok(Some(target)));
                }
                if turn && let Err(refusal) = roots::demand_another(&mut transaction, &ids, None, now).await?
                {
                    return Ok(Err(refusal.into()));
                }
                touch(&ids);
                revoke_and_note(&mut transaction, &ids, reason, &caller.principal, now).await?;
                let token = select_tokens!("WHERE id = $1", rows::uuid(id))
                    .fetch_one(&mut transaction)
                    .await?
                    .try_into()?;
                transaction.commit().await?;
                Ok(Ok(Some(token)))
            })
            .await?;
        match revoked {
            Err(refusal) => Ok(Err(refusal)),
            Ok(None) => Ok(Ok(None)),
            Ok(Some(token)) => {
                // In a separate statement, so later than the commit that has returned.
                let effective_time = self.effective_time().await?;
                Ok(Ok(Some(Revoked { token, effective_time })))
            }
        }
    }

    /// Returns whether all tokens rotated from a token, in any number of steps, are revoked.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn line_is_revoked(&self, id: TokenId) -> Result<bool, StoreError> {
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
    pub async fn has_unrevoked_tokens(
        &self,
        organization_id: &OrganizationId,
        user_id: &UserId,
    ) -> Result<bool, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT EXISTS (SELECT FROM tokens
                       WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1
                           AND user_id = $2 AND revoke_time IS NULL) AS "some!""#,
                organization_id.as_str(),
                user_id.as_str()
            );
            Ok(row.fetch_one(self.single()?).await?.some)
        })
        .await
    }

    /// Revokes all tokens of a user when `allow` permits their reserved scopes. The inner result is the
    /// refusal of `allow`, of the caller, or of the last root token.
    ///
    /// # Errors
    /// [`StoreError`]; the outcome may be unknown then, and a retry is safe.
    pub async fn revoke_user_tokens<E: From<CredentialError> + From<LastRootError>>(
        &self,
        caller: &Caller,
        (organization_id, user_id): (&OrganizationId, &UserId),
        (reason, last_root): (&RevokeReason, LastRoot),
        allow: impl Fn(&Caller, ReservedScopes) -> Result<(), E>,
        touch: Touch<'_>,
    ) -> Result<Result<RevokedUser, E>, StoreError> {
        let revoked = self
            .retrying_within(USER_DEADLINE, async || {
                let mut transaction = self.begin_within(USER_DEADLINE).await?;
                owners::lock_alone(&mut transaction, organization_id, user_id).await?;
                let locked = lock_caller(&mut transaction, caller, None).await?;
                lock_all_of(&mut transaction, organization_id, user_id).await?;
                let roots =
                    roots::lock_for_user(&mut transaction, organization_id, user_id, last_root).await?;
                let (caller, now) = match locked.judge(&mut transaction).await? {
                    Ok(judged) => judged,
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                let kept = roots::demand_another(&mut transaction, &roots, None, now).await?;
                let (ids, reserved) =
                    revoke_all_of(&mut transaction, organization_id, user_id, reason, now).await?;
                if let Err(refusal) = allow(&caller, reserved).and_then(|()| Ok(kept?)) {
                    return Ok(Err(refusal));
                }
                if ids.is_empty() {
                    transaction.commit_unchanged().await?;
                    return Ok(Ok(0));
                }
                touch(&ids);
                events::append_revocations(
                    &mut transaction,
                    &ids,
                    &given("revoke_reason", reason),
                    &caller.principal,
                )
                .await?;
                transaction.commit().await?;
                Ok(Ok(ids.len() as u64))
            })
            .await?;
        match revoked {
            Err(refusal) => Ok(Err(refusal)),
            Ok(count) => Ok(Ok(RevokedUser { count, effective_time: self.effective_time().await? })),
        }
    }
}

/// Revokes these locked tokens, at the time after their locks, and writes an event for each.
pub(super) async fn revoke_and_note(
    transaction: &mut Transaction,
    ids: &[TokenId],
    reason: &RevokeReason,
    actor: &Principal,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let uuids: Vec<Uuid> = ids.iter().copied().map(rows::uuid).collect();
    // The first time and reason stay, even if two transactions revoke it.
    sqlx::query!(
        "UPDATE tokens SET revoke_time = $3, revoke_reason = $2 WHERE id = ANY($1) AND revoke_time IS NULL",
        &uuids,
        reason.as_str(),
        now
    )
    .execute(&mut *transaction)
    .await?;
    events::append_revocations(transaction, ids, &given("revoke_reason", reason), actor).await
}

/// Locks a user's tokens that are not revoked, in the order in which rotations lock.
async fn lock_all_of(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    user_id: &UserId,
) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT count(*) FROM (
             SELECT FROM tokens
             WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
                 AND revoke_time IS NULL
             ORDER BY create_time, id FOR UPDATE) AS locked",
        organization_id.as_str(),
        user_id.as_str()
    )
    .fetch_one(transaction)
    .await?;
    Ok(())
}

/// Revokes a user's tokens, and returns their ids with all their reserved scopes.
async fn revoke_all_of(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    user_id: &UserId,
    reason: &RevokeReason,
    now: OffsetDateTime,
) -> Result<(Vec<TokenId>, ReservedScopes), StoreError> {
    let rows = sqlx::query!(
        r#"UPDATE tokens SET revoke_time = $4, revoke_reason = $3
           WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
               AND revoke_time IS NULL
           RETURNING id, ARRAY(SELECT scope FROM unnest(scopes) AS scope WHERE scope LIKE 'tokend:%')
               AS "reserved!""#,
        organization_id.as_str(),
        user_id.as_str(),
        reason.as_str(),
        now
    )
    .fetch_all(transaction)
    .await?;
    let mut reserved = ReservedScopes::default();
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(rows::token_id(row.id));
        if !row.reserved.is_empty() {
            let scopes = row.reserved.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>();
            // Unreadable scopes may be any: only a caller that may revoke everything may revoke them.
            let scopes = scopes.and_then(Scopes::new).map(|scopes| scopes.reserved());
            reserved = reserved.and(scopes.unwrap_or_else(|_| [ReservedScope::Root].into_iter().collect()));
        }
    }
    Ok((ids, reserved))
}

/// Returns the audit entry of a change besides its time: the reason, if one was given.
pub(super) fn given(field: &str, reason: &RevokeReason) -> Vec<FieldChange> {
    let new = Some(reason.as_str().to_owned()).filter(|text| !text.is_empty());
    let change = new.map(|new| FieldChange { field: field.to_owned(), old: None, new: Some(new) });
    change.into_iter().collect()
}
