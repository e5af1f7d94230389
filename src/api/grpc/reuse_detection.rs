//! Detects reuse: a superseded token that is used to rotate itself. Called by the service before it
//! refuses the call, which it does in any case.

use tonic::Request;

use super::fields;
use super::token_api::TokenApi;
use crate::api::error::CallError;
use crate::api::proto::RotateTokenRequest;
use crate::auth::callers::Callers;
use crate::auth::peer::Peer;
use crate::domain::CredentialError;
use crate::domain::audit_context::{self, Acting, AuditContext, TraceId};
use crate::secret::{RequestId, TokenId};
use crate::verify::{AuthenticateError, ClientKey};

/// A token with the right secret that has expired and asks for its own rotation.
#[derive(Debug)]
pub(super) struct ReuseDetection {
    id: TokenId,
    /// The peer's, since the call has no authenticated caller.
    share: ClientKey,
    request_id: Option<RequestId>,
}

impl TokenApi {
    /// Returns a suspicion if the refused call is an expired token's rotation of itself.
    pub(super) fn suspect(
        &self,
        refusal: &AuthenticateError,
        request: &Request<RotateTokenRequest>,
    ) -> Option<ReuseDetection> {
        // Only a caller with the right secret gets this error.
        if !matches!(refusal, AuthenticateError::Credential(CredentialError::Expired)) {
            return None;
        }
        let id = self.context.engine.named(Callers::presented(request)?)?;
        let message = request.get_ref();
        let by_itself = fields::token_id(&message.token_id).is_ok_and(|named| named == id);
        let request_id = fields::request_id(&message.request_id).ok().flatten();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        by_itself.then_some(ReuseDetection { id, share: ClientKey::peer(peer), request_id })
    }

    /// Checks the suspicion, and revokes the token's family if it is confirmed.
    ///
    /// # Errors
    /// There is no permit, or the database fails. The call then fails with this error instead of
    /// the refusal, so that the client tries again.
    pub(super) async fn follow(
        &self,
        suspicion: Option<ReuseDetection>,
        trace_id: TraceId,
    ) -> Result<(), CallError> {
        let Some(ReuseDetection { id, share, request_id }) = suspicion else { return Ok(()) };
        let _permit = self.context.call_permits.take(share)?;
        let invalidation = self.context.engine.begin_invalidation();
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let detection = self.context.actions.detect_reuse(id, share, request_id.as_ref(), &on_change);
        let provenance = AuditContext { acting: Acting::Nobody, trace_id: Some(trace_id) };
        let revoked = audit_context::within(provenance, detection).await?;
        if revoked > 0 {
            tracing::warn!(token.id = %id, revoked, "a superseded token was used to rotate: its family is revoked");
        }
        Ok(())
    }
}
