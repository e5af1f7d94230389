//! What somebody gets who is not signed in, in place of a page: the form to sign in, and why. Called by visits and
//! by the sign-in itself.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::pages::{Again, SignIn};
use crate::api::console::failure::{Failure, credential};
use crate::api::console::interface::{Asked, Console, with_cookie};
use crate::api::console::pages::Frame;
use crate::auth::sessions::SessionError;
use crate::domain::CredentialError;
use crate::verify::AuthenticateError;

/// Where a person goes after signing in, unless another page was asked for.
pub(in crate::api::console) const HOME: &str = "/tokens";

/// How the paths of pages begin to which a person may be led after signing in.
const ROOMS: [&str; 6] = ["tokens", "find", "why", "audit", "policy", "sessions"];

/// Why somebody has to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api::console) enum Why {
    NoSession,
    Over,
    Credential(CredentialError),
}

/// Asks for a sign-in. A link on another site comes without the cookie: the page is then loaded once more, from
/// here.
pub(in crate::api::console) fn wanted(console: &Console, asked: &Asked, why: Why) -> Failure {
    let error = AuthenticateError::from(match why {
        Why::Credential(error) => error,
        Why::NoSession | Why::Over => CredentialError::Missing,
    });
    let linked = asked.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if linked && asked.method == Method::GET && why == Why::NoSession {
        let page = Again { frame: Frame::new(None, String::new()), address: asked.address().to_owned() };
        return Failure::shown(error, console.stranger_page(asked, StatusCode::OK, &page));
    }
    let notice = match (why, &asked.method) {
        (Why::NoSession, &Method::POST) => Some("Nothing was done: sign in first."),
        (Why::NoSession, _) => None,
        (Why::Over, &Method::POST) => Some("Nothing was done: your session is over. Sign in again."),
        (Why::Over, _) => Some("Your session is over. Sign in again."),
        (Why::Credential(_), _) => Some("The token that you were signed in with is no longer accepted."),
    };
    let problem = match why {
        Why::Credential(error) => Some(credential(error).text),
        _ => None,
    };
    let next = if asked.method == Method::GET { asked.address() } else { HOME };
    let response = sign_in_form(console, asked, notice, problem, next);
    let response =
        if why == Why::NoSession { response } else { with_cookie(response, &console.site.set_cookie(None)) };
    Failure::shown(error, response)
}

/// Asks for a sign-in because the session is not recognised, if that is certain.
pub(in crate::api::console) async fn unrecognised(
    console: &Console,
    asked: &Asked,
    error: SessionError,
) -> Failure {
    match error {
        SessionError::Unknown => {
            // Guesses at cookies are slowed like guesses at secrets.
            if !console.integrations.context.callers.hold(console.throttled(asked)).await {
                return crate::admission::fair_limiter::Refused::Full.into();
            }
            wanted(console, asked, Why::Over)
        }
        SessionError::Over => wanted(console, asked, Why::Over),
        SessionError::Credential(error) => wanted(console, asked, Why::Credential(error)),
        SessionError::NotKnown(error) => error.into(),
        SessionError::Refused(refused) => refused.into(),
    }
}

/// Returns the page with the form to sign in.
pub(in crate::api::console) fn sign_in_form(
    console: &Console,
    asked: &Asked,
    notice: Option<&'static str>,
    problem: Option<String>,
    next: &str,
) -> Response {
    let frame = Frame::new(None, String::new());
    let page = SignIn { frame, notice, problem, next: safe(next).to_owned() };
    let mut response = console.stranger_page(asked, StatusCode::UNAUTHORIZED, &page);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Returns a path of the console's own pages, else the first page: nobody is led elsewhere by signing in.
pub(in crate::api::console) fn safe(next: &str) -> &str {
    let first = next.strip_prefix('/').and_then(|rest| rest.split(['/', '?']).next());
    let own = first.is_some_and(|first| ROOMS.contains(&first));
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if own && plain && !next.contains("//") { next } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere_by_signing_in() {
        for good in
            ["/tokens", "/tokens/new?name=a%20b", "/tokens?user=ada", "/audit?kind=revoked", "/sessions"]
        {
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
