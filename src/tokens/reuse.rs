//! Noticing that a token that was superseded long ago is used to rotate: whoever does has kept, or stolen, what
//! nobody should have any more. Called where `RotateToken` has refused its caller's credential.

use super::{ActionError, Actions};
use crate::admission::fair_limiter::ClientKey;
use crate::domain::{FieldError, Principal, RevokeReason};
use crate::secret::{RequestId, TokenId};
use crate::store::Touch;

/// What the audit log says of it.
const REASON: &str = "reuse of a superseded token";

impl Actions {
    /// Revokes the family of a token that has proven itself, has expired and asks for its own rotation, if it has
    /// a successor and its organization's policy says so; a retry of the rotation that was answered is no
    /// reuse. The work is counted against `share`. Returns how many tokens were revoked. `touch` is told of them before.
    ///
    /// # Errors
    /// [`ActionError`]: the database. The outcome may be unknown then, and a repeat is safe.
    pub async fn detect_reuse(
        &self,
        id: TokenId,
        share: ClientKey,
        request_id: Option<&RequestId>,
        touch: Touch<'_>,
    ) -> Result<usize, ActionError> {
        let store = self.admission.revocations(share).await?;
        let Some((token, _)) = store.read_token(id).await? else { return Ok(0) };
        // Asked again inside the transaction; here so that nothing is locked where nobody wants it.
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
