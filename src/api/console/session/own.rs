//! The sessions of the token that a person is signed in with, and for root those of any token: since when, from where,
//! and their end.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use uuid::Uuid;

use super::gate::unrecognised;
use super::pages::{SessionView, Sessions};
use super::proof;
use super::visit::Visit;
use crate::api::console::commands::Call;
use crate::api::console::failure::Failure;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to, with_cookie};
use crate::api::console::moments::Moment;
use crate::api::console::pages::visible;
use crate::domain::Permission;
use crate::secret::TokenId;
use crate::store::Which;
use crate::tokens::ActionError;

/// How many sessions are shown.
const MAX_SHOWN: usize = 25;

/// Lists them.
pub(super) async fn list(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let id = token(&visit, &page_request.query())?;
    let page = page(console, page_request, &visit, (id, Problems::default())).await?;
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns whose sessions are meant: those of the session's own token, unless root names another one.
fn token(visit: &Visit, fields: &Fields<'_>) -> Result<TokenId, ActionError> {
    let named = fields.get("token");
    if named.is_empty() {
        return Ok(visit.session.token_id);
    }
    let id = TokenId::parse(named).map_err(|_| ActionError::NotFound)?;
    if id != visit.session.token_id {
        visit.caller().require(Permission::Root)?;
    }
    Ok(id)
}

async fn page(
    console: &Console,
    page_request: &PageRequest,
    visit: &Visit,
    (id, problems): (TokenId, Problems),
) -> Result<Sessions, Failure> {
    let is_own = id == visit.session.token_id;
    let of = if is_own {
        None
    } else {
        let (token, _) = console.integrations.context.actions.get_token(visit.caller(), id).await?;
        Some((id.to_string(), visible(token.name.as_str()), visible(token.user_id.as_str())))
    };
    let all = match console.sessions.all_of(id, visit.now).await {
        Ok(all) => all,
        Err(error) => return Err(unrecognised(console, page_request, error).await),
    };
    let more = all.len().saturating_sub(MAX_SHOWN);
    let sessions = all.into_iter().take(MAX_SHOWN).map(|session| SessionView {
        is_this: session.id == visit.session.id,
        id: session.id.to_string(),
        since: Moment::new(session.open_time, visit.now),
        last_use: Moment::new(session.last_use_time, visit.now),
        address: session.address.unwrap_or_else(|| "Not known".to_owned()),
        by_link: session.by_link,
    });
    Ok(Sessions {
        shown: sessions.collect(),
        more,
        frame: visit.frame(),
        of,
        problems,
        lines: Call::new(&["console", "link"], "CreateConsoleLink").lines(),
        // One's own sessions end without it: that takes nothing from anybody else.
        proof: !is_own && visit.needs_proof(),
    })
}

/// Ends one, or all of them.
pub(super) async fn end(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let mut visit = console.visit(page_request).await?;
    let fields = page_request.form();
    visit.check_form(&fields)?;
    let id = token(&visit, &fields)?;
    let is_own = id == visit.session.token_id;
    if !is_own && let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = page(console, page_request, &visit, (id, Problems::one("proof", problem))).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let which = match fields.get("session") {
        "" => Which::All,
        // What is not there has ended.
        session => Which::One(Uuid::parse_str(session).unwrap_or_default()),
    };
    if let Err(error) = console.sessions.end_some(id, which).await {
        return Err(unrecognised(console, page_request, error).await);
    }
    if is_own && (which == Which::All || which == Which::One(visit.session.id)) {
        return Ok(with_cookie(go_to("/sign-in"), &console.site.set_cookie(&page_request.headers, None)));
    }
    if is_own {
        return Ok(go_to("/sessions"));
    }
    let query = Serializer::new(String::new()).append_pair("token", &id.to_string()).finish();
    Ok(go_to(&format!("/sessions?{query}")))
}
