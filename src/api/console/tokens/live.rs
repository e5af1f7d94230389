//! Live updates of an open list: which tokens have changed, and their states, as server-sent events from the hub that serves
//! watchers. The session is judged anew before each message and every few seconds; listening does not extend it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::list_query::ListQuery;
use super::view::TokenView;
use crate::admission::response_memory::reserved_bytes;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::session::visit::Visit;
use crate::changefeed::hub::{Batch, Watch, WatchPosition};
use crate::domain::page::Listing;
use crate::domain::{Caller, Extent, OrganizationId, Permission, Reach};
use crate::secret::TokenId;
use crate::store::Change;

/// How long changes are collected before they are sent in one message.
const COLLECT: Duration = Duration::from_millis(250);

/// How often the session is judged when nothing changes.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a message may stay unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How many tokens one message names; further ones are counted.
const MAX_CHANGES: usize = 100;

/// How long a browser waits before it connects again, in milliseconds.
const RETRY_FIELD: &str = "retry: 2000\n";

type Sender = mpsc::Sender<Result<Bytes, Infallible>>;

/// Streams the changes of the tokens that the list's organization and user select, from now on or after the position
/// of the last message.
pub(super) async fn open(console: &Arc<Console>, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit_unseen(page_request).await?;
    visit.caller().require(Permission::ReadOwn)?;
    // Without a filter that is valid there is no list either.
    let Ok(listing) = ListQuery::read(&page_request.query()).parse() else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    // This status makes a browser try no more.
    let Some(open) = console.streams.open(visit.session.id) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let watch = console.hub.subscribe().await?;
    let organization = organization(visit.caller());
    let start = match page_request.headers.get("last-event-id") {
        None => Start::Now,
        Some(id) => {
            let id = id.to_str().unwrap_or_default();
            let position = WatchPosition::parse(id, organization.as_ref(), &console.keyring.peek());
            position.map_or(Start::Unknown, Start::After)
        }
    };
    let (sender, receiver) = mpsc::channel(1);
    let news = News { console: Arc::clone(console), visit, listing, organization, sender };
    tokio::spawn(async move {
        let _open = open;
        let closed = news.sender.clone();
        tokio::select! {
            _ = news.send_all(watch, start) => {}
            () = closed.closed() => {}
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// Returns the organization that a caller sees; `None`: all.
fn organization(caller: &Caller) -> Option<OrganizationId> {
    match caller.reach() {
        Reach::Any => None,
        Reach::Only(own) => Some(own.clone()),
    }
}

/// What one page gets.
struct News {
    console: Arc<Console>,
    visit: Visit,
    listing: Listing,
    organization: Option<OrganizationId>,
    sender: Sender,
}

/// Where a page continues.
enum Start {
    /// With what comes from now on.
    Now,
    /// After the position that it has.
    After(WatchPosition),
    /// It has a position of another life of the server, or of nothing: something may have changed.
    Unknown,
}

/// Returns the instant after this duration.
fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now)
}

/// Changes that are not sent yet.
#[derive(Default)]
struct Collected {
    /// The newest change of each token.
    changes: BTreeMap<TokenId, Change>,
    /// How many further ones there are, or may be.
    more: usize,
    position: Option<WatchPosition>,
}

impl News {
    /// Sends news until the session ends or the page has gone.
    async fn send_all(mut self, mut watch: Watch, start: Start) -> Option<()> {
        let mut missed = Collected { position: Some(watch.position.clone()), ..Collected::default() };
        match start {
            Start::Now => {}
            Start::After(position) => self.catch_up(position, &watch, &mut missed).await,
            Start::Unknown => missed.add(1),
        }
        self.send(missed, watch.as_of).await?;
        loop {
            let mut collected = Collected::default();
            let mut now = None;
            let mut until = after(SESSION_CHECK_INTERVAL);
            loop {
                match timeout_at(until, watch.batches.recv()).await {
                    Ok(Ok(batch)) => {
                        let first = collected.is_empty();
                        self.collect(&batch, &mut collected);
                        now = Some(batch.as_of);
                        if first && !collected.is_empty() {
                            until = after(COLLECT);
                        }
                    }
                    Ok(Err(broadcast::error::RecvError::Lagged(_))) => collected.add(1),
                    // The hub ends with the server.
                    Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                    Err(_) => break,
                }
            }
            self.send(collected, now.unwrap_or(self.visit.now)).await?;
        }
    }

    async fn catch_up(&self, after: WatchPosition, watch: &Watch, missed: &mut Collected) {
        let mut pages = self.console.hub.catch_up(after, watch.position.clone());
        loop {
            match pages.next().await {
                Ok(Some(changes)) => self.take(&changes, missed),
                Ok(None) => return,
                Err(_) => {
                    missed.add(1);
                    return;
                }
            }
        }
    }

    fn collect(&self, batch: &Batch, collected: &mut Collected) {
        if !batch.is_continuous {
            collected.add(1);
        }
        self.take(&batch.changes, collected);
        collected.position = batch.position.clone().or_else(|| collected.position.take());
    }

    /// Takes those changes that the list may show.
    fn take(&self, changes: &[Change], collected: &mut Collected) {
        for change in changes.iter().filter(|change| self.concerns(change)) {
            if collected.changes.len() < MAX_CHANGES || collected.changes.contains_key(&change.id) {
                collected.changes.insert(change.id, change.clone());
            } else {
                collected.add(1);
            }
        }
    }

    /// Returns whether the session may see a change; if only those of its own user, it must be certain that this is one.
    fn sees(&self, change: &Change) -> bool {
        match self.visit.caller().extent(Permission::ReadOwn) {
            Ok(extent @ Extent::User(..)) => {
                change.token.as_ref().is_some_and(|token| extent.includes(token))
            }
            extent => extent.is_ok(),
        }
    }

    fn concerns(&self, change: &Change) -> bool {
        // One whose organization is not known is shown to nobody.
        let Some(of_change) = &change.organization_id else { return false };
        let user = change.token.as_ref().map(|token| &token.user_id);
        let kind = change.token.as_ref().map(|token| token.owner_kind);
        self.sees(change)
            && self.organization.as_ref().is_none_or(|own| own == of_change)
            && self.listing.organization_id.as_ref().is_none_or(|listed| listed == of_change)
            && self.listing.user_id.as_ref().zip(user).is_none_or(|(listed, user)| listed == user)
            && self.listing.owner_kind.zip(kind).is_none_or(|(listed, kind)| listed == kind)
    }

    /// Sends what was collected, or a sign of life, if the session goes on.
    async fn send(&mut self, mut collected: Collected, now: OffsetDateTime) -> Option<()> {
        if !self.visit.is_still_valid(&self.console).await {
            return None;
        }
        self.visit.caller().require(Permission::ReadOwn).ok()?;
        // The session may see less than when they were collected.
        collected.changes.retain(|_, change| self.sees(change));
        let mut text = String::from(RETRY_FIELD);
        if let Some(position) = &collected.position {
            let id = position.render(self.organization.as_ref(), &self.console.keyring.peek());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "id: {id}");
        }
        if collected.is_empty() {
            // A comment alone would not set the position.
            text.push_str("event: position\ndata\n\n");
        } else {
            let changes: Vec<_> = collected
                .changes
                .values()
                .map(|change| {
                    let state = change.token.as_ref().map_or(("Deleted", "off"), |token| {
                        TokenView::new(token, now, &self.console.prefix).state
                    });
                    json!({"id": change.id.to_string(), "state": [state.0, state.1]})
                })
                .collect();
            let _ = writeln!(text, "data: {}\n", json!({"changes": changes, "more": collected.more}));
        }
        let memory = &self.console.integrations.context.response_memory;
        let memory = memory.wait_to_reserve(self.visit.share(), text.len(), SEND_TIMEOUT).await.ok()?;
        let bytes = reserved_bytes(text.as_bytes(), vec![memory]);
        tokio::time::timeout(SEND_TIMEOUT, self.sender.send(Ok(bytes))).await.ok()?.ok()
    }
}

impl Collected {
    fn add(&mut self, number: usize) {
        self.more = self.more.saturating_add(number);
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.more == 0
    }
}
