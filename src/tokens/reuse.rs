//! Detects that a token that was superseded long ago is used to rotate: the client has kept, or stolen,
//! a secret that nobody should still have. Called when `RotateToken` has refused its caller's
//! credential.

use super::{ActionError, Actions};
use crate::admission::fair_limiter::ClientKey;
use crate::domain::{FieldError, Principal, RevokeReason};
use crate::secret::{RequestId, TokenId};
use crate::store::Touch;

/// The reason in the audit log.
const REASON: &str = "reuse of a superseded token";

impl Actions {
    /// Revokes the family of a token whose secret is proven, which has expired and requests its own
    /// rotation, if it has a successor and its organization's policy requires it; a retry of the
    /// completed rotation is no reuse. The work is charged to `share`. Returns how many tokens were
    /// revoked. `touch` receives them before.
    ///
    /// # Errors
    /// [`ActionError`]: the database. The outcome may be unknown then, and a retry is safe.
    pub async fn detect_reuse(
        &self,
        id: TokenId,
        share: ClientKey,
        request_id: Option<&RequestId>,
        touch: Touch<'_>,
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
        let request_mac = request_id.map(|request| request.mac(&Principal::Token(id).to_string()));
        let organization_id = &token.organization_id;
        Ok(store.revoke_reused(id, organization_id, request_mac.as_ref(), &reason, touch).await?)
    }
}
