//! Token revocation (RFC 7009): a client that has a secret may revoke it, as by `RevokeToken`. A
//! text that proves nothing gets the same success, since for its holder it is revoked; if that is
//! not known, the response is 503.

use axum::http::HeaderMap;
use tracing::{Span, field};

use super::form::Form;
use super::integrations::Integrations;
use super::presented::Caller;
use super::refusal::Refusal;
use crate::api::error::CallError;
use crate::auth::peer::Peer;
use crate::domain::root::LastRoot;
use crate::domain::{RevokeReason, Violations};
use crate::metrics::Integration;
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::revoke::RevocationExtent;
use crate::tokens::revoke::{RevokeToken, Right};
use crate::verify::{ClientKey, Credential, ProveError};

/// The reason in the audit log.
const REASON: &str = "revoked by its holder (RFC 7009)";

impl Integrations {
    pub(crate) async fn revoke(&self, peer: &Peer, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        self.call(Integration::Revocation, Some(peer.address.ip()), traceparent, async {
            let credential = self.caller(&Caller::of_client(headers, body)?, peer).await?;
            let form = Form::read_loosely(body, &["token", "token_type_hint"])?;
            Ok(self.revoke_proven(&credential, form.require("token")?).await?)
        })
        .await
    }

    async fn revoke_proven(&self, credential: &Credential, secret: &str) -> Result<(), CallError> {
        let caller = credential.caller();
        let share = ClientKey::from(caller);
        let _permit = self.context.call_permits.take(share)?;
        let id = match self.context.engine.prove(secret, share).await {
            Ok(Some(id)) => id,
            Ok(None) | Err(ProveError::Format(_)) => return Ok(()),
            Err(ProveError::Undetermined(error)) => return Err(error.into()),
        };
        Span::current().record("token.id", field::display(id));
        let invalidation = self.context.engine.invalidate_token(id);
        let on_change = |ids: &[TokenId]| invalidation.also(ids);
        let reason = RevokeReason::parse(REASON).map_err(|error| Violations::one("reason", &error))?;
        let (right, last_root) = (Right::Possession, LastRoot::Allow);
        let request = RevokeToken { id, right, extent: RevocationExtent::Family, reason, last_root };
        match self.context.actions.revoke_token(caller, &request, &on_change).await {
            // Deleted in the meantime.
            Ok(_) | Err(ActionError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
