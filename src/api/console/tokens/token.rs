//! One token: all that is stored of it, its family, its history, and what can be done with it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;

use super::history::{EVENTS, EventView, disable_reason};
use super::pages::{Acts, One};
use super::subject::{Subject, named};
use super::view::TokenView;
use super::{like, notice};
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Asked, Console};
use crate::api::console::session::visit::Visit;
use crate::domain::{Caller, Permission, Token, TokenState};
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::events::{EventPage, ListEvents};

/// The most bytes that an event takes in the use case and on the page.
const EACH_EVENT: usize = 64 << 10;

/// Shows everything about a token.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(page(&console, &asked, &id))).await
}

async fn page(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    let id = named(id)?;
    let (subject, token) = Subject::read(console, &visit, id).await?;
    let fields = asked.query();
    let page_token = Some(fields.typed("events")).filter(|text| !text.is_empty());
    let is_older = page_token.is_some();
    let most = EACH_EVENT.saturating_mul(EVENTS as usize);
    let _room = console.integrations.context.response_memory.acquire_page(visit.share(), most).await?;
    let found = events(console, &visit, id, page_token).await?;
    let sealed_to = console.integrations.context.actions.sealed_to(visit.caller()).await?;
    let page = One {
        frame: visit.frame(),
        notice: notice::read(&visit, &fields, &id.to_string()).map(|(_, notice)| notice),
        acts: acts(visit.caller(), &token, &visit, subject.organizations),
        before: relative(console, &visit, token.rotated_from).await?,
        after: relative(console, &visit, token.superseded_by).await?,
        events: found.events.iter().map(|event| EventView::new(event, visit.now, sealed_to)).collect(),
        disable_reason: disable_reason(&found.events),
        older: found.next_page_token.map(|token| older(id, &token)),
        is_older,
        subject,
    };
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns what the caller can do with a token in its state.
fn acts(caller: &Caller, token: &Token, visit: &Visit, organizations: bool) -> Acts {
    let writes = caller.require(Permission::Write).is_ok();
    let state = token.state(visit.now);
    let manages = writes && caller.may_manage(token).is_ok() && state != TokenState::Revoked;
    Acts {
        edit: manages,
        rotate: manages && state == TokenState::Active && token.superseded_by.is_none(),
        disable: manages && state == TokenState::Active,
        enable: manages && token.disable_time.is_some(),
        revoke: manages,
        like: writes.then(|| like::address(token, organizations)),
    }
}

/// Reads a member of the family; `None`: there is none, or it was deleted.
async fn relative(
    console: &Console,
    visit: &Visit,
    id: Option<TokenId>,
) -> Result<Option<TokenView>, Failure> {
    let Some(id) = id else { return Ok(None) };
    match console.integrations.context.actions.get_token(visit.caller(), id).await {
        Ok((token, now)) => Ok(Some(TokenView::new(&token, now, &console.prefix))),
        Err(ActionError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn events(
    console: &Console,
    visit: &Visit,
    id: TokenId,
    page_token: Option<String>,
) -> Result<EventPage, ActionError> {
    let request = ListEvents {
        organization_id: None,
        token_id: Some(id),
        user_id: None,
        occurred_after: None,
        occurred_before: None,
        actor: None,
        kinds: Vec::new(),
        page_size: EVENTS,
        page_token,
    };
    console.integrations.context.actions.list_events(visit.caller(), request).await
}

fn older(id: TokenId, page_token: &str) -> String {
    let query = Serializer::new(String::new()).append_pair("events", page_token).finish();
    format!("/tokens/{id}?{query}#history")
}
