//! The secret once more, or a new link, before an act of somebody who can do everything and signed in a while ago: a browser that is
//! left open must not be enough. Called by the pages that change something.

use super::gate::unrecognised;
use super::link;
use super::visit::Visit;
use crate::admission::fair_limiter::Refused;
use crate::api::console::failure::{Failure, credential};
use crate::api::console::form::Fields;
use crate::api::console::interface::{Console, PageRequest};
use crate::domain::CredentialError;
use crate::secret::LinkCode;
use crate::verify::AuthenticateError;

/// Returns what is wrong with the proof in a form; `None` if it is given, or not needed.
pub(in crate::api::console) async fn missing(
    console: &Console,
    page_request: &PageRequest,
    visit: &mut Visit,
    fields: &Fields<'_>,
) -> Result<Option<String>, Failure> {
    if !visit.needs_proof() {
        return Ok(None);
    }
    let secret = fields.get("proof").trim();
    if secret.is_empty() {
        let text = "You signed in more than 15 minutes ago. Paste the secret once more, or a new link.";
        return Ok(Some(text.to_owned()));
    }
    if let Some(code) = LinkCode::parse(secret) {
        let address = console.address(page_request);
        return match console.sessions.prove_by_link(&visit.session, &code, visit.now, address).await {
            Ok(()) => {
                visit.session.proof_time = visit.now;
                Ok(None)
            }
            Err(error) => link::explain(console, page_request, error).await.map(Some),
        };
    }
    let context = &console.integrations.context;
    match context.engine.authenticate(secret, console.address(page_request)).await {
        Ok(proven) if proven.caller().principal == visit.caller().principal => {
            if let Err(error) = console.sessions.prove(&visit.session, visit.now).await {
                return Err(unrecognised(console, page_request, error).await);
            }
            visit.session.proof_time = visit.now;
            Ok(None)
        }
        Ok(_) => {
            Ok(Some("This is the secret of another token than the one you are signed in with.".to_owned()))
        }
        Err(AuthenticateError::Undetermined(error)) => Err(error.into()),
        Err(AuthenticateError::Credential(error)) => {
            context.metrics.work.authentication_failed();
            if error == CredentialError::Invalid
                && !context.callers.hold(console.throttled(page_request)).await
            {
                return Err(Refused::Full.into());
            }
            Ok(Some(credential(error).text))
        }
    }
}
