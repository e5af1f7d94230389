//! The page of the audit log.

use askama::Template as _;
use axum::http::StatusCode;
use axum::response::Response;

use super::pages::{Audit, EventView};
use super::query::AuditQuery;
use crate::api::console::failure::{Failure, of_action, unrendered};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest, html};
use crate::domain::size::LARGEST_EVENT;
use crate::domain::{Permission, Reach};
use crate::tokens::ActionError;

/// How many events a page shows.
const EVENTS_PER_PAGE: u32 = 25;

/// Shows a page of the events that the filters in the address select, newest first.
pub(super) async fn page(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let caller = visit.caller();
    caller.require(Permission::ReadAll)?;
    let query = AuditQuery::read(&page_request.query());
    let mut page = Audit {
        frame: visit.frame(),
        lines: query.lines(),
        query,
        problems: Problems::default(),
        organizations: caller.reach() == Reach::Any,
        events: Vec::new(),
        next: None,
    };
    let request = match page.query.parse(EVENTS_PER_PAGE) {
        Ok(request) => request,
        Err(problems) => {
            page.problems = problems;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    let context = &console.integrations.context;
    let most = LARGEST_EVENT.saturating_mul(EVENTS_PER_PAGE as usize);
    let turn = context.response_memory.acquire_page(visit.share(), most).await?;
    match context.actions.list_events(caller, request).await {
        Ok(found) => {
            let sealed_to = context.actions.sealed_to(caller).await?;
            let shown = found.events.iter().map(|event| EventView::new(event, visit.now, sealed_to));
            page.events = shown.collect();
            page.next = found.next_page_token.map(|token| page.query.at(&token));
        }
        Err(error @ ActionError::Access(_)) if !page.query.organization.is_empty() => {
            page.problems = Problems::one("organization", of_action(&error).text);
            return console.page(&visit, StatusCode::FORBIDDEN, &page);
        }
        Err(error) => return Err(error.into()),
    }
    let text = page.render().map_err(|_| unrendered())?;
    turn.reservation.shrink(text.len());
    Ok(html(StatusCode::OK, &text, turn.reservation.clone()))
}
