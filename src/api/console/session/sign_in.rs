//! Signing in with the secret of a token, and out again. The secret goes to the engine and nowhere else.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};
use tracing::{Span, field};

use super::gate::{HOME, SignInReason, safe, sign_in_form, sign_in_required, unrecognised};
use crate::admission::fair_limiter::Refused;
use crate::api::console::failure::{Failure, credential, foreign_form};
use crate::api::console::interface::{Console, PageRequest, go_to, with_cookie};
use crate::api::error::CallError;
use crate::domain::CredentialError;
use crate::tokens::console_link::may_sign_in;
use crate::verify::{AuthenticateError, Credential};

/// Shows the form.
pub(in crate::api::console) async fn form(
    State(console): State<Arc<Console>>,
    page_request: PageRequest,
) -> Response {
    sign_in_form(&console, &page_request, None, None, HOME)
}

/// Opens a session for a person who has the secret of a token that may read or write.
pub(super) async fn submit(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let next = safe(fields.get("next"));
    let refused = |error: AuthenticateError, text| {
        Failure::shown(error, sign_in_form(console, page_request, None, Some(text), next))
    };
    let secret = fields.get("secret").trim();
    if secret.is_empty() {
        let error = CredentialError::Missing;
        return Err(refused(error.into(), credential(error).text));
    }
    let address = console.address(page_request);
    let proven = match console.integrations.context.engine.authenticate(secret, address).await {
        Ok(proven) => proven,
        Err(AuthenticateError::Undetermined(error)) => return Err(error.into()),
        Err(AuthenticateError::Credential(error)) => {
            console.integrations.context.metrics.work.authentication_failed();
            if error == CredentialError::Invalid
                && !console.integrations.context.callers.hold(console.throttled(page_request)).await
            {
                return Err(Refused::Full.into());
            }
            return Err(refused(error.into(), credential(error).text));
        }
    };
    establish(console, page_request, &proven, false, next).await
}

/// Opens a session for a credential that was just proven, by a link or by its secret, and goes to a page.
pub(super) async fn establish(
    console: &Console,
    page_request: &PageRequest,
    proven: &Credential,
    by_link: bool,
    next: &str,
) -> Result<Response, Failure> {
    page_request.peer.credentials.note();
    let caller = proven.caller();
    Span::current().record("caller", field::display(&caller.principal));
    let refused = |error: CallError, text: &str| {
        Failure::shown(error, sign_in_form(console, page_request, None, Some(text.to_owned()), next))
    };
    if let Err(error) = may_sign_in(caller) {
        let text = "This token can neither read nor create tokens. Sign in with one that has tokend:read, \
                    tokend:self, tokend:write or tokend:root.";
        return Err(refused(error.into(), text));
    }
    let key = match console.sessions.open(proven, by_link, console.address(page_request)).await {
        Ok(Some(key)) => key,
        Ok(None) => return Err(refused(AuthenticateError::from(CredentialError::Malformed).into(), "")),
        Err(error) => return Err(unrecognised(console, page_request, error).await),
    };
    Ok(begin(console, page_request, &key.render(), next).await)
}

/// Gives the browser the cookie of its new session, ends the one that it had, and goes to a page.
pub(super) async fn begin(
    console: &Console,
    page_request: &PageRequest,
    value: &SecretString,
    next: &str,
) -> Response {
    if let Some(before) = console.site.key(&page_request.headers) {
        // Otherwise it would go on unseen. It goes with its time if this fails.
        let _ = console.sessions.end(&before).await;
    }
    let cookie = console.site.set_cookie(&page_request.headers, Some(value.expose_secret()));
    with_cookie(go_to(next), &cookie)
}

/// Ends the session.
pub(super) async fn sign_out(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let Some(key) = console.site.key(&page_request.headers) else {
        return Err(sign_in_required(console, page_request, SignInReason::NoSession));
    };
    // The session need not be good any more to be ended.
    if !key.accepts(page_request.form().get("form_token")) {
        return Err(foreign_form());
    }
    if let Err(error) = console.sessions.end(&key).await {
        return Err(unrecognised(console, page_request, error).await);
    }
    // A person in a portal session has no secret to sign in with.
    let next = if console.site.has_portal(&page_request.headers) { "/portal" } else { "/sign-in" };
    Ok(with_cookie(go_to(next), &console.site.set_cookie(&page_request.headers, None)))
}
