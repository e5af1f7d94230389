//! What somebody gets who is not signed in, in place of a page: the form to sign in, and why. Called by visits and
//! by the sign-in itself.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::pages::{Reload, SignIn};
use super::portal_page;
use crate::api::console::failure::{Failure, credential};
use crate::api::console::interface::{Console, PageRequest, with_cookie};
use crate::api::console::pages::Frame;
use crate::auth::sessions::SessionError;
use crate::domain::CredentialError;
use crate::verify::AuthenticateError;

/// Where a person goes after signing in, unless another page was asked for.
pub(in crate::api::console) const HOME: &str = "/tokens";

/// How the paths of pages begin to which a person may be led after signing in.
const SECTIONS: [&str; 8] = ["tokens", "users", "find", "why", "audit", "policy", "sessions", "login"];

/// Why somebody has to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api::console) enum SignInReason {
    NoSession,
    Over,
    Credential(CredentialError),
}

/// Asks for a sign-in. A link on another site comes without the cookie: the page is then loaded once more, from
/// here.
pub(in crate::api::console) fn sign_in_required(
    console: &Console,
    page_request: &PageRequest,
    why: SignInReason,
) -> Failure {
    let headers = &page_request.headers;
    if why == SignInReason::Credential(CredentialError::PortalOver) || console.site.has_portal(headers) {
        return portal_page::over(console, page_request);
    }
    if console.site.framed_by(headers).is_some() {
        return portal_page::missing(console, page_request);
    }
    let error = AuthenticateError::from(match why {
        SignInReason::Credential(error) => error,
        SignInReason::NoSession | SignInReason::Over => CredentialError::Missing,
    });
    let linked = page_request.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if linked && page_request.method == Method::GET && why == SignInReason::NoSession {
        let page =
            Reload { frame: Frame::new(None, String::new()), address: page_request.address().to_owned() };
        return Failure::shown(error, console.unauthenticated_page(page_request, StatusCode::OK, &page));
    }
    let notice = match (why, &page_request.method) {
        (SignInReason::NoSession, &Method::POST) => Some("Nothing was done: sign in first."),
        (SignInReason::NoSession, _) => None,
        (SignInReason::Over, &Method::POST) => Some("Nothing was done: your session is over. Sign in again."),
        (SignInReason::Over, _) => Some("Your session is over. Sign in again."),
        (SignInReason::Credential(_), _) => {
            Some("The token that you were signed in with is no longer accepted.")
        }
    };
    let problem = match why {
        SignInReason::Credential(error) => Some(credential(error).text),
        _ => None,
    };
    let next = if page_request.method == Method::GET { page_request.address() } else { HOME };
    let response = sign_in_form(console, page_request, notice, problem, next);
    let response = if why == SignInReason::NoSession {
        response
    } else {
        with_cookie(response, &console.site.set_cookie(&page_request.headers, None))
    };
    Failure::shown(error, response)
}

/// Asks for a sign-in because the session is not authenticated, if that is certain.
pub(in crate::api::console) async fn unrecognised(
    console: &Console,
    page_request: &PageRequest,
    error: SessionError,
) -> Failure {
    match error {
        SessionError::NoSession => {
            // Guesses at cookies are slowed like guesses at secrets.
            if !console.integrations.context.callers.hold(console.throttled(page_request)).await {
                return crate::admission::fair_limiter::Refused::Full.into();
            }
            sign_in_required(console, page_request, SignInReason::Over)
        }
        SessionError::Over => sign_in_required(console, page_request, SignInReason::Over),
        SessionError::Credential(error) => {
            sign_in_required(console, page_request, SignInReason::Credential(error))
        }
        SessionError::Undetermined(error) => error.into(),
        SessionError::Refused(refused) => refused.into(),
    }
}

/// Returns the page with the form to sign in.
pub(in crate::api::console) fn sign_in_form(
    console: &Console,
    page_request: &PageRequest,
    notice: Option<&'static str>,
    problem: Option<String>,
    next: &str,
) -> Response {
    let frame = Frame::new(None, String::new());
    let page = SignIn { frame, notice, problem, next: safe(next).to_owned() };
    let mut response = console.unauthenticated_page(page_request, StatusCode::UNAUTHORIZED, &page);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Returns a path of the console's own pages, else the first page: nobody is led elsewhere by signing in.
pub(in crate::api::console) fn safe(next: &str) -> &str {
    let first = next.strip_prefix('/').and_then(|rest| rest.split(['/', '?']).next());
    let own = first.is_some_and(|first| SECTIONS.contains(&first));
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if own && plain && !next.contains("//") { next } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere_by_signing_in() {
        for good in [
            "/tokens",
            "/tokens/new?name=a%20b",
            "/tokens?user=ada",
            "/audit?kind=revoked",
            "/sessions",
            "/login?port=1024",
        ] {
            assert_eq!(safe(good), good);
        }
        for bad in [
            "",
            "/",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/tokens/..\\x",
            "/tokens//x",
        ] {
            assert_eq!(safe(bad), HOME, "{bad}");
        }
        assert_eq!(safe("/tokensx"), HOME);
        assert_eq!(safe("/tokens/\r\nset-cookie: a=b"), HOME);
    }
}
