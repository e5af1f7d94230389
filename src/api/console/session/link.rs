//! Signing in by a link. The code stands in the fragment of its address, which only script sees; without script it is
//! pasted. Looking at the code shows as whom it signs in, and only the second form uses it: nobody becomes somebody
//! else unawares, and what merely opens links uses none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::gate::{HOME, unrecognised};
use super::pages::{Confirm, Link};
use super::sign_in::establish;
use crate::admission::fair_limiter::Refused;
use crate::api::console::failure::{Failure, credential};
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::pages::{Frame, SignedIn};
use crate::api::http::identity::Identity;
use crate::auth::links::LinkError;
use crate::domain::CredentialError;
use crate::secret::LinkCode;
use crate::verify::AuthenticateError;

/// Shows the form that takes the code.
pub(in crate::api::console) async fn form(
    State(console): State<Arc<Console>>,
    page_request: PageRequest,
) -> Response {
    link_form(&console, &page_request, StatusCode::OK, None)
}

/// Shows as whom a code signs in. Changes nothing.
pub(super) async fn look(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let code = code(console, page_request)?;
    let found = match console.sessions.look_at(&code, console.address(page_request)).await {
        Ok(found) => found,
        Err(error) => return Err(refused(console, page_request, error).await),
    };
    let identity = found.record().and_then(Identity::of);
    let signed_in =
        identity.map(|Identity(token)| SignedIn::new(&token.name, &token.user_id)).unwrap_or_default();
    let fields = page_request.form();
    let page = Confirm {
        frame: Frame::new(None, String::new()),
        signed_in,
        code: fields.get("code").trim(),
        replaces: console.site.key(&page_request.headers).is_some(),
    };
    Ok(console.unauthenticated_page(page_request, StatusCode::OK, &page))
}

/// Signs in.
pub(super) async fn confirm(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let code = code(console, page_request)?;
    let found = match console.sessions.look_at(&code, console.address(page_request)).await {
        Ok(found) => found,
        Err(error) => return Err(refused(console, page_request, error).await),
    };
    match console.sessions.consume(&code).await {
        Ok(()) => establish(console, page_request, &found, true, HOME).await,
        Err(error) => Err(refused(console, page_request, error).await),
    }
}

/// Reads the code of a form.
fn code(console: &Console, page_request: &PageRequest) -> Result<LinkCode, Failure> {
    LinkCode::parse(page_request.form().get("code")).ok_or_else(|| {
        let text = "This is not the code of a link. Paste the whole link, as it was printed.";
        let page = link_form(console, page_request, StatusCode::UNAUTHORIZED, Some(text.to_owned()));
        Failure::shown(AuthenticateError::from(CredentialError::Malformed), page)
    })
}

/// Shows the form again, with what is wrong with the link. Guesses at codes are slowed like guesses at secrets.
async fn refused(console: &Console, page_request: &PageRequest, error: LinkError) -> Failure {
    let text = match explain(console, page_request, error).await {
        Ok(text) => text,
        Err(failure) => return failure,
    };
    let page = link_form(console, page_request, StatusCode::UNAUTHORIZED, Some(text));
    Failure::shown(AuthenticateError::from(CredentialError::Invalid), page)
}

/// Explains what is wrong with a link.
pub(super) async fn explain(
    console: &Console,
    page_request: &PageRequest,
    error: LinkError,
) -> Result<String, Failure> {
    Ok(match error {
        LinkError::NoLink => {
            let context = &console.integrations.context;
            context.metrics.work.authentication_failed();
            if !context.callers.hold(console.throttled(page_request)).await {
                return Err(Refused::Full.into());
            }
            "There is no such link, or it is old. Make another one.".to_owned()
        }
        LinkError::Used => {
            "This link was used already: it signs in once. Make another one. If it was not you who used it, revoke \
             the token that it stands for."
                .to_owned()
        }
        LinkError::Expired => "This link has expired: it lasts one minute. Make another one.".to_owned(),
        LinkError::OtherToken => {
            "This link is of another token than the one you are signed in with.".to_owned()
        }
        LinkError::Credential(error) => credential(error).text,
        LinkError::Session(error) => return Err(unrecognised(console, page_request, error).await),
    })
}

fn link_form(
    console: &Console,
    page_request: &PageRequest,
    status: StatusCode,
    problem: Option<String>,
) -> Response {
    console.unauthenticated_page(
        page_request,
        status,
        &Link { frame: Frame::new(None, String::new()), problem },
    )
}
