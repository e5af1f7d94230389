//! One token: all that is stored of it, its family, its history, and what can be done with it.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;

use super::history::{EVENTS_PER_PAGE, EventView};
use super::pages::{Acts, Family, FamilyEnd, One};
use super::subject::{Subject, named};
use super::view::TokenView;
use super::{like, notice};
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::visible;
use crate::api::console::session::visit::Visit;
use crate::api::console::usage::chart::{Chart, last_days};
use crate::domain::event::EventKind;
use crate::domain::{Caller, Permission, Token, TokenState};
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::events::{EventPage, ListEvents};
use crate::tokens::family::GENERATIONS;

/// The most bytes that an event takes in the action and on the page.
const EACH_EVENT: usize = 64 << 10;

/// Shows everything about a token.
pub(super) async fn page(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let id = named(id)?;
    let (subject, token) = Subject::read(console, &visit, id).await?;
    let fields = page_request.query();
    let page_token = Some(fields.typed("events")).filter(|text| !text.is_empty());
    let is_older = page_token.is_some();
    let most = EACH_EVENT.saturating_mul(EVENTS_PER_PAGE as usize);
    let _room = console.integrations.context.response_memory.acquire_page(visit.share(), most).await?;
    let found = events(console, &visit, id, (Vec::new(), EVENTS_PER_PAGE, page_token)).await?;
    let sealed_to = console.integrations.context.actions.sealed_to(visit.caller()).await?;
    let page = One {
        frame: visit.frame(),
        notice: notice::read(&visit, &fields, &id.to_string()).map(|(_, notice)| notice),
        acts: acts(visit.caller(), &token, &visit, subject.organizations),
        family: family(console, &visit, &token).await?,
        events: found.events.iter().map(|event| EventView::new(event, visit.now, sealed_to)).collect(),
        disable_reason: disable_reason(console, &visit, &token).await?,
        chart: chart(console, &visit, id).await?,
        sessions: visit.caller().require(Permission::Root).is_ok(),
        older: found.next_page_token.map(|token| older(id, &token)),
        is_older,
        subject,
    };
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns what the caller can do with a token in its state.
fn acts(caller: &Caller, token: &Token, visit: &Visit, organizations: bool) -> Acts {
    let extent = caller.extent(Permission::WriteOwn);
    let writes = extent.is_ok_and(|extent| extent.includes(token));
    let state = token.state(visit.now);
    let manages = writes && caller.may_manage(token).is_ok() && state != TokenState::Revoked;
    let may_end_all = writes
        && caller.require(Permission::WriteAll).is_ok()
        && caller.may_end_all(&token.user_id, token.owner_kind).is_ok();
    let issues = manages && caller.may_issue_again(token).is_ok();
    Acts {
        edit: issues,
        rotate: issues && state == TokenState::Active && token.superseded_by.is_none(),
        disable: manages && state == TokenState::Active,
        enable: issues && token.disable_time.is_some(),
        revoke: manages,
        user: may_end_all.then(|| {
            let organization = if organizations { token.organization_id.as_str() } else { "" };
            let owner = TypedOwner::new(organization, token.user_id.as_str(), token.owner_kind);
            let disables = token.user_disable_time.is_none();
            (owner.at(if disables { "/users/disable" } else { "/users/enable" }), disables)
        }),
        like: writes.then(|| like::address(token, organizations)),
    }
}

/// Reads the family of a token; `None`: it is alone.
async fn family(console: &Console, visit: &Visit, token: &Token) -> Result<Option<Family>, Failure> {
    if token.rotated_from.is_none() && token.superseded_by.is_none() {
        return Ok(None);
    }
    let members = console.integrations.context.actions.family(visit.caller(), token.id).await?;
    let views = members.iter().map(|member| TokenView::new(member, visit.now, &console.prefix));
    let views: Vec<TokenView> = views.collect();
    let place = members.iter().position(|member| member.id == token.id).unwrap_or_default();
    let after = views.len().saturating_sub(place).saturating_sub(1);
    let end = |id: Option<TokenId>, shown: usize| {
        // Fewer than are read at once: the next one is not stored any more.
        let is_deleted = shown < usize::from(GENERATIONS);
        id.map(|id| FamilyEnd { id: id.to_string(), is_deleted })
    };
    Ok(Some(Family {
        earlier: end(members.first().and_then(|first| first.rotated_from), place),
        later: end(members.last().and_then(|last| last.superseded_by), after),
        place,
        members: views,
    }))
}

/// Reads why a token is disabled, which its newest event of that kind says.
async fn disable_reason(console: &Console, visit: &Visit, token: &Token) -> Result<String, Failure> {
    if token.disable_time.is_none() {
        return Ok(String::new());
    }
    let newest = (vec![EventKind::Disabled], 1, None);
    let found = events(console, visit, token.id, newest).await?;
    let change =
        found.events.iter().flat_map(|event| &event.changes).find(|change| change.field == "disable_reason");
    Ok(change.and_then(|change| change.new.as_deref()).map(visible).unwrap_or_default())
}

/// Reads the verifications of the last 30 days.
async fn chart(console: &Console, visit: &Visit, id: TokenId) -> Result<Chart, ActionError> {
    let request = last_days(Some(id), None, (None, None), 0);
    Ok(Chart::new(&console.integrations.context.actions.usage(visit.caller(), request).await?))
}

async fn events(
    console: &Console,
    visit: &Visit,
    id: TokenId,
    (kinds, page_size, page_token): (Vec<EventKind>, u32, Option<String>),
) -> Result<EventPage, ActionError> {
    let request = ListEvents {
        organization_id: None,
        token_id: Some(id),
        user_id: None,
        owner_kind: None,
        occurred_after: None,
        occurred_before: None,
        actor: None,
        kinds,
        page_size,
        page_token,
    };
    console.integrations.context.actions.list_events(visit.caller(), request).await
}

fn older(id: TokenId, page_token: &str) -> String {
    let query = Serializer::new(String::new()).append_pair("events", page_token).finish();
    format!("/tokens/{id}?{query}#history")
}
