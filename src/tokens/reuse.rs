//! Detects that a token that was superseded long ago is used to rotate: the client has kept, or stolen,
//! a secret that nobody should still have. Called when `RotateToken` has refused its caller's
//! credential.

use time::OffsetDateTime;

use super::{ActionError, Actions};
use crate::admission::fair_limiter::ClientKey;
use crate::domain::policy::Policy;
use crate::domain::{FieldError, Principal, RevokeReason, Token, TokenState};
use crate::secret::{RequestId, TokenId};
use crate::store::{Member, OnChange};

/// The reason in the audit log.
const REASON: &str = "reuse of a superseded token";

impl Actions {
    /// Revokes the family of a token whose secret is proven, which has expired and requests its own
    /// rotation, if it has a successor and its organization's policy requires it; a retry of the
    /// completed rotation is no reuse. The work is charged to `share`. Returns how many tokens were
    /// revoked. `on_change` receives them before.
    ///
    /// # Errors
    /// [`ActionError`]: the database. The outcome may be unknown then, and a retry is safe.
    pub async fn detect_reuse(
        &self,
        id: TokenId,
        share: ClientKey,
        request_id: Option<&RequestId>,
        on_change: OnChange<'_>,
    ) -> Result<usize, ActionError> {
        let store = self.admission.revocations(share).await?;
        let Some((token, _)) = store.read_token(id).await? else { return Ok(0) };
        // Checked again inside the transaction; here so that nothing is locked when the policy does not
        // require it.
        if !store.read_policy(&token.organization_id).await?.policy.reuse_detection {
            return Ok(0);
        }
        let reason = RevokeReason::parse(REASON)
            .map_err(|error: FieldError| ActionError::invalid("reason", &error))?;
        let principal = Principal::Token(id);
        let request_mac = request_id.map(|request| request.mac(&principal.to_string()));
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(&token.organization_id).await?;
                if !policy.reuse_detection || transaction.is_known_request(request_mac.as_ref()).await? {
                    return Ok(0);
                }
                let family = transaction.lock_family(id).await?;
                let now = transaction.time().await?;
                let rotated = transaction.successor_id(id).await?.is_some();
                if !rotated || !family.iter().any(|member| is_over(member, id, now)) {
                    return Ok(0);
                }
                let ids: Vec<TokenId> =
                    family.iter().filter(|member| !member.is_revoked).map(|member| member.id).collect();
                on_change(&ids);
                transaction.revoke_tokens(&ids, id, &reason, &principal, now).await?;
                transaction.commit().await?;
                Ok(ids.len())
            })
            .await
    }
}

/// Returns whether this member is the token itself, subject to policies, and expired.
fn is_over(member: &Member, id: TokenId, now: OffsetDateTime) -> bool {
    let is_over = |token: &Token| Policy::binds(token) && token.state(now) == TokenState::Expired;
    member.id == id && member.token.as_ref().is_some_and(is_over)
}
