//! The page of somebody who has no portal session: it takes the code of a link, and says why none goes on. Asks for no
//! secret. Called where portal sessions are opened, and where a request turns out to belong to none.

use axum::http::StatusCode;
use axum::response::Response;

use super::pages::Portal;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest, with_cookie};
use crate::api::console::pages::Frame;
use crate::domain::CredentialError;
use crate::verify::AuthenticateError;

/// Returns the page.
pub(super) fn page(
    console: &Console,
    page_request: &PageRequest,
    status: StatusCode,
    (notice, problem): (Option<&'static str>, Option<String>),
) -> Response {
    let page = Portal { frame: Frame::new(None, String::new()), notice, problem };
    console.unauthenticated_page(page_request, status, &page)
}

/// Answers a request in a frame that has no session.
pub(super) fn missing(console: &Console, page_request: &PageRequest) -> Failure {
    let notice = "Open this page from the application that sent you here.";
    let response = page(console, page_request, StatusCode::UNAUTHORIZED, (Some(notice), None));
    Failure::shown(AuthenticateError::from(CredentialError::PortalOver), response)
}

/// Answers a request whose portal session is over.
pub(super) fn over(console: &Console, page_request: &PageRequest) -> Failure {
    let notice = "Your session is over, and nothing was done. Open this page once more from the application that sent \
                  you here.";
    let response = page(console, page_request, StatusCode::UNAUTHORIZED, (Some(notice), None));
    let response = with_cookie(response, &console.site.set_cookie(&page_request.headers, None));
    Failure::shown(AuthenticateError::from(CredentialError::PortalOver), response)
}
