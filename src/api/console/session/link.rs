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
use crate::api::console::interface::{Asked, Console};
use crate::api::console::pages::{Frame, Who};
use crate::api::http::identity::Identity;
use crate::auth::links::LinkError;
use crate::domain::CredentialError;
use crate::secret::LinkCode;
use crate::verify::AuthenticateError;

/// Shows the form that takes the code.
pub(in crate::api::console) async fn form(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    link_form(&console, &asked, StatusCode::OK, None)
}

/// Shows as whom a code signs in. Changes nothing.
pub(in crate::api::console) async fn look(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(ask(&console, &asked))).await
}

/// Signs in.
pub(in crate::api::console) async fn confirm(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(open(&console, &asked))).await
}

async fn ask(console: &Console, asked: &Asked) -> Result<Response, Failure> {
    let code = code(console, asked)?;
    let found = match console.sessions.look_at(&code, console.address(asked)).await {
        Ok(found) => found,
        Err(error) => return Err(refused(console, asked, error).await),
    };
    let identity = found.record().and_then(Identity::of);
    let who = identity.map(|Identity(token)| Who::new(&token.name, &token.user_id)).unwrap_or_default();
    let fields = asked.form();
    let page = Confirm {
        frame: Frame::new(None, String::new()),
        who,
        code: fields.get("code").trim(),
        replaces: console.site.key(&asked.headers).is_some(),
    };
    Ok(console.stranger_page(asked, StatusCode::OK, &page))
}

async fn open(console: &Console, asked: &Asked) -> Result<Response, Failure> {
    let code = code(console, asked)?;
    let found = match console.sessions.look_at(&code, console.address(asked)).await {
        Ok(found) => found,
        Err(error) => return Err(refused(console, asked, error).await),
    };
    match console.sessions.consume(&code).await {
        Ok(()) => establish(console, asked, &found, true, HOME).await,
        Err(error) => Err(refused(console, asked, error).await),
    }
}

/// Reads the code of a form.
fn code(console: &Console, asked: &Asked) -> Result<LinkCode, Failure> {
    LinkCode::parse(asked.form().get("code")).ok_or_else(|| {
        let text = "This is not the code of a link. Paste the whole link, as it was printed.";
        let page = link_form(console, asked, StatusCode::UNAUTHORIZED, Some(text.to_owned()));
        Failure::shown(AuthenticateError::from(CredentialError::Malformed), page)
    })
}

/// Shows the form again, with what is wrong with the link. Guesses at codes are slowed like guesses at secrets.
async fn refused(console: &Console, asked: &Asked, error: LinkError) -> Failure {
    let text = match words(console, asked, error).await {
        Ok(text) => text,
        Err(failure) => return failure,
    };
    let page = link_form(console, asked, StatusCode::UNAUTHORIZED, Some(text));
    Failure::shown(AuthenticateError::from(CredentialError::Invalid), page)
}

/// Explains what is wrong with a link.
pub(super) async fn words(console: &Console, asked: &Asked, error: LinkError) -> Result<String, Failure> {
    Ok(match error {
        LinkError::Unknown => {
            let context = &console.integrations.context;
            context.metrics.work.authentication_failed();
            if !context.callers.hold(console.throttled(asked)).await {
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
        LinkError::Session(error) => return Err(unrecognised(console, asked, error).await),
    })
}

fn link_form(console: &Console, asked: &Asked, status: StatusCode, problem: Option<String>) -> Response {
    console.stranger_page(asked, status, &Link { frame: Frame::new(None, String::new()), problem })
}
