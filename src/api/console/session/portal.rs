//! Portal sessions: opened by a link that an application of the person's had made, in the page of that application or
//! beside it. As with other links, only the second form uses it. The person has no secret, so nothing here asks for one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::gate::{HOME, unrecognised};
use super::pages::PortalOpen;
use super::portal_page::page;
use super::{link, sign_in};
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::moments::Moment;
use crate::api::console::pages::{Frame, visible};
use crate::api::console::site::portal_value;
use crate::auth::links::LinkError;
use crate::clock;
use crate::domain::CredentialError;
use crate::domain::session::PortalSession;
use crate::secret::LinkCode;
use crate::verify::AuthenticateError;

/// Shows the form that takes the code.
pub(super) async fn form(State(console): State<Arc<Console>>, page_request: PageRequest) -> Response {
    page(&console, &page_request, StatusCode::OK, (None, None))
}

/// Shows for whom a code opens a session. Changes nothing.
pub(super) async fn look(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let (_, portal) = found(console, page_request).await?;
    let fields = page_request.form();
    let page = PortalOpen {
        frame: Frame::new(None, String::new()),
        user: visible(portal.terms.user_id.as_str()),
        code: fields.get("code").trim(),
        end: Moment::new(portal.expire_time, clock::now()),
        replaces: console.site.key(&page_request.headers).is_some(),
    };
    Ok(console.unauthenticated_page(page_request, StatusCode::OK, &page))
}

/// Opens the session.
pub(super) async fn open(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let (code, _) = found(console, page_request).await?;
    let address = console.address(page_request);
    match console.sessions.open_portal(&code, address).await {
        Ok(Some(key)) => Ok(sign_in::begin(console, page_request, &portal_value(&key), HOME).await),
        Ok(None) => {
            let error = console.sessions.unused_portal(&code, address).await;
            Err(refused(console, page_request, error).await)
        }
        Err(error) => Err(unrecognised(console, page_request, error).await),
    }
}

/// Reads the code of a form, and finds what it opens.
async fn found(console: &Console, page_request: &PageRequest) -> Result<(LinkCode, PortalSession), Failure> {
    let Some(code) = LinkCode::parse(page_request.form().get("code")) else {
        let problem = "This is not the code of a link. Paste the whole link.".to_owned();
        let page = page(console, page_request, StatusCode::UNAUTHORIZED, (None, Some(problem)));
        return Err(Failure::shown(AuthenticateError::from(CredentialError::Malformed), page));
    };
    match console.sessions.look_at_portal(&code, console.address(page_request)).await {
        Ok(portal) => Ok((code, portal)),
        Err(error) => Err(refused(console, page_request, error).await),
    }
}

/// Shows the form again, with what is wrong with the link. Guesses at codes are slowed like guesses at secrets.
async fn refused(console: &Console, page_request: &PageRequest, error: LinkError) -> Failure {
    let said = match error {
        LinkError::Used => "This link was used already: it opens this page once.",
        LinkError::Expired => "This link has expired: it lasts one minute.",
        LinkError::Credential(_) => "This link is no longer good.",
        error @ (LinkError::NoLink | LinkError::OtherToken | LinkError::Session(_)) => {
            match link::explain(console, page_request, error).await {
                Ok(_) => "There is no such link, or it is old.",
                Err(failure) => return failure,
            }
        }
    };
    let problem = format!("{said} Open this page once more from the application that sent you here.");
    let page = page(console, page_request, StatusCode::UNAUTHORIZED, (None, Some(problem)));
    Failure::shown(AuthenticateError::from(CredentialError::Invalid), page)
}
