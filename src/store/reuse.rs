//! Revokes a family of tokens when one that was superseded long ago is used to rotate. Called by the
//! reuse action.

use time::OffsetDateTime;

use super::families::{Member, lock_family, membership};
use super::locks::clock;
use super::pooling::Transaction;
use super::revoke::{Touch, revoke_and_note};
use super::{Store, StoreError, policies};
use crate::domain::policy::Policy;
use crate::domain::{OrganizationId, Principal, RevokeReason, Token, TokenState};
use crate::secret::TokenId;

impl Store {
    /// Revokes the token with this id, its predecessors and its successors, if its organization's
    /// policy requires it, it has a successor and its grace period is over, and the request was not
    /// completed before. Returns how many tokens this call revoked. `touch` receives them before.
    ///
    /// # Errors
    /// [`StoreError`]; the outcome may be unknown then, and a retry is safe.
    pub async fn revoke_reused(
        &self,
        id: TokenId,
        organization_id: &OrganizationId,
        request_mac: Option<&[u8; 32]>,
        reason: &RevokeReason,
        touch: Touch<'_>,
    ) -> Result<usize, StoreError> {
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let policy = policies::hold(&mut transaction, organization_id).await?;
            if !policy.reuse_detection || answered(&mut transaction, request_mac).await? {
                return Ok(0);
            }
            let family = lock_family(&mut transaction, id).await?;
            let now = clock(&mut transaction).await?;
            if !superseded(&mut transaction, id, &family, now).await? {
                return Ok(0);
            }
            let ids: Vec<TokenId> =
                family.iter().filter(|member| !member.is_revoked).map(|member| member.id).collect();
            touch(&ids);
            revoke_and_note(&mut transaction, &ids, reason, &Principal::Token(id), now).await?;
            transaction.commit().await?;
            Ok(ids.len())
        })
        .await
    }
}

/// Returns whether a request was completed within the last 24 hours.
async fn answered(transaction: &mut Transaction, request_mac: Option<&[u8; 32]>) -> Result<bool, StoreError> {
    let Some(request_mac) = request_mac else { return Ok(false) };
    let now = clock(transaction).await?;
    let row = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM token_requests
               WHERE request_mac = $1 AND create_time > $2::timestamptz - interval '24 hours') AS "known!""#,
        request_mac,
        now
    )
    .fetch_one(transaction)
    .await?;
    Ok(row.known)
}

/// Returns whether a token of this family is subject to policies, has a successor, and has expired
/// since.
async fn superseded(
    transaction: &mut Transaction,
    id: TokenId,
    family: &[Member],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let over =
        |token: &Token| token.id == id && Policy::binds(token) && token.state(now) == TokenState::Expired;
    let rotated = membership(transaction, id).await?.is_some_and(|found| found.successor().is_some());
    Ok(rotated && family.iter().filter_map(|member| member.token.as_ref()).any(over))
}
