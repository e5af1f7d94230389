//! The export of the audit log: one JSON object a line, as `tokend audit list --json` prints them. Read page by page as
//! it is sent, and judged anew before each page. An export that cannot go on is cut off, which a browser reports.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::query::AuditQuery;
use crate::admission::fair_limiter::Refused;
use crate::admission::response_memory::reserved_bytes;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::pages::{Frame, Message};
use crate::api::console::session::visit::Visit;
use crate::api::events;
use crate::api::message_json::{ALWAYS_OF_EVENT, MessageJson};
use crate::domain::Permission;
use crate::domain::size::MAX_PAGE_BYTES;
use crate::tokens::events::ListEvents;

/// How many events are read at once.
const EVENTS_PER_PAGE: u32 = 500;

/// The most bytes of a page as lines: names of fields stand in each.
const MAX_PAGE_TEXT_BYTES: usize = 2 * MAX_PAGE_BYTES;

/// How long a page may stay unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams all events that the filters in the address select, newest first.
pub(super) async fn open(console: &Arc<Console>, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::ReadAll)?;
    let Ok(request) = AuditQuery::read(&page_request.query()).parse(EVENTS_PER_PAGE) else {
        let text = "One of its filters is not valid. Go back to the log, which says which one.".to_owned();
        let page = Message { frame: Frame::new(None, String::new()), title: "Nothing was exported", text };
        return Ok(console.unauthenticated_page(page_request, StatusCode::BAD_REQUEST, &page));
    };
    // Refused here, before a file begins.
    console
        .integrations
        .context
        .actions
        .list_events(visit.caller(), ListEvents { page_size: 1, ..request.clone() })
        .await?;
    let Some(open) = console.streams.open(visit.session.id) else { return Err(Refused::OverShare.into()) };
    let (sender, receiver) = mpsc::channel(1);
    let exported = Arc::clone(console);
    tokio::spawn(async move {
        let _open = open;
        let whole = send_all(&exported, visit, request, &sender).await;
        if whole.is_none() {
            // Ends the answer before its end.
            let _ = sender.send(Err(io::Error::other("the export ends early"))).await;
        }
    });
    let headers = [
        (CONTENT_TYPE, "application/jsonl; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"audit.jsonl\""),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

/// Sends page after page; `None` if it cannot go on.
async fn send_all(
    console: &Console,
    mut visit: Visit,
    mut request: ListEvents,
    sender: &mpsc::Sender<Result<Bytes, io::Error>>,
) -> Option<()> {
    let context = &console.integrations.context;
    loop {
        if !visit.is_still_valid(console).await {
            return None;
        }
        let memory = context
            .response_memory
            .wait_to_reserve(visit.share(), MAX_PAGE_TEXT_BYTES, SEND_TIMEOUT)
            .await
            .ok()?;
        let page = context.actions.list_events(visit.caller(), request.clone()).await.ok()?;
        let mut text = String::new();
        for event in page.events {
            let json = MessageJson::new("TokenEvent", &events::event(event), &ALWAYS_OF_EVENT);
            text.push_str(&serde_json::to_string(&json).ok()?);
            text.push('\n');
        }
        memory.shrink(text.len());
        let bytes = reserved_bytes(text.as_bytes(), vec![memory]);
        if !bytes.is_empty() {
            tokio::time::timeout(SEND_TIMEOUT, sender.send(Ok(bytes))).await.ok()?.ok()?;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_none() {
            return Some(());
        }
    }
}
