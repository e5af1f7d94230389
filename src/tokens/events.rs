//! Reads the audit log, page by page. Called by `ListTokenEvents`.

use super::{ActionError, Actions};
use crate::domain::event::{Actor, EventKind, TokenEvent};
use crate::domain::page::PageTokenError;
use crate::domain::{Caller, OrganizationId, OwnerKind, Permission, UserId, size};
use crate::secret::{Keyring, TokenId};
use crate::store::{EventFilter, Events};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

/// The fields of a `ListTokenEvents` request; all filters that are given must match.
#[derive(Debug, Clone)]
pub struct ListEvents {
    /// The organization of the tokens; `None`: see [`Caller::listed_owner`].
    pub organization_id: Option<OrganizationId>,
    /// Only events of this token.
    pub token_id: Option<TokenId>,
    /// Only events of this user's tokens.
    pub user_id: Option<UserId>,
    /// Only events of this kind of owner.
    pub owner_kind: Option<OwnerKind>,
    /// Only events at this time or later, in whole microseconds.
    pub occurred_after: Option<OffsetDateTime>,
    /// Only events before this time, in whole microseconds.
    pub occurred_before: Option<OffsetDateTime>,
    /// Only events by this actor.
    pub actor: Option<Actor>,
    /// Only events of these kinds; empty: of all.
    pub kinds: Vec<EventKind>,
    /// The maximum number of events to return.
    pub page_size: u32,
    /// The page token of the last page; `None`: start with the newest event.
    pub page_token: Option<String>,
}

/// One page of events, newest first.
#[derive(Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<TokenEvent>,
    /// Continues after this page; `None`: it was the last one.
    pub next_page_token: Option<String>,
}

impl Actions {
    /// Lists events for a caller with `tokend:read` or `tokend:self`.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, the database.
    pub async fn list_events(&self, caller: &Caller, request: ListEvents) -> Result<EventPage, ActionError> {
        let (organization_id, user_id) =
            caller.listed_owner(request.organization_id.clone(), request.user_id.clone())?;
        let filter = EventFilter {
            organization_id: organization_id.as_ref(),
            token_id: request.token_id,
            user_id: user_id.as_ref(),
            owner_kind: caller.listed_kind(request.owner_kind)?,
            occurred_after: request.occurred_after,
            occurred_before: request.occurred_before,
            actor: request.actor.as_ref(),
            kinds: &request.kinds,
        };
        let bound = bound(filter);
        let before = request.page_token.map(|text| parse(&text, &bound, &self.keyring.peek())).transpose()?;

        // One event more than fits shows whether there is a next page.
        let Events { mut events, read_to } = self
            .admission
            .reads(caller)
            .await?
            .list_events(filter, before, request.page_size.saturating_add(1))
            .await?;
        let fitting = size::fitting(events.iter().map(size::of_event)).min(request.page_size as usize);
        let more = events.len() > fitting;
        events.truncate(fitting);
        // If some cannot be read, there may be more events although all read ones fit.
        let next = if more { events.last().map(|event| event.id) } else { read_to };
        let next_page_token = next.map(|id| render(id, &bound, &self.keyring.peek()));
        Ok(EventPage { events, next_page_token })
    }
}

impl Actions {
    /// Returns the number of the last event that a genuine seal covers, for a caller with `tokend:read` or `tokend:self`; `None`:
    /// none is sealed yet.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database.
    pub async fn sealed_to(&self, caller: &Caller) -> Result<Option<i64>, ActionError> {
        caller.require(Permission::ReadOwn)?;
        let store = self.admission.reads(caller).await?;
        let newest = store.newest_seal(&self.keyring.get()).await?;
        Ok(newest.map(|sealed| sealed.header.last_id))
    }
}

/// Returns the filters as bytes, each preceded by its presence and length.
fn bound(filter: EventFilter<'_>) -> Vec<u8> {
    let micros = |time: OffsetDateTime| (time.unix_timestamp_nanos() / 1_000).to_be_bytes().to_vec();
    let mut parts = vec![
        filter.organization_id.map(|id| id.as_str().as_bytes().to_vec()),
        filter.token_id.map(|id| id.to_bytes().to_vec()),
        filter.user_id.map(|id| id.as_str().as_bytes().to_vec()),
    ];
    let later = [
        filter.occurred_after.map(micros),
        filter.occurred_before.map(micros),
        filter.actor.map(|actor| actor.as_str().as_bytes().to_vec()),
    ];
    let kinds: Vec<&str> = filter.kinds.iter().map(|kind| kind.word()).collect();
    let kinds = Some(kinds.join(" ").into_bytes()).filter(|kinds| !kinds.is_empty());
    let owner_kind = filter.owner_kind.map(|kind| kind.word().as_bytes().to_vec());
    let last = [kinds, owner_kind];
    let given = |part: &Option<_>| part.is_some();
    // Replicas of older versions refuse page tokens with these filters, and accept all others.
    if later.iter().chain(&last).any(given) {
        parts.extend(later);
    }
    let used = last.iter().rposition(given).map_or(0, |at| at.saturating_add(1));
    parts.extend(last.into_iter().take(used));
    // No other authenticated text starts with these bytes.
    let mut bytes = b"events1".to_vec();
    for part in parts {
        bytes.push(u8::from(part.is_some()));
        let part = part.unwrap_or_default();
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&part);
    }
    bytes
}

fn render(id: i64, bound: &[u8], keyring: &Keyring) -> String {
    let id = id.to_be_bytes();
    URL_SAFE_NO_PAD.encode([&id[..], &keyring.sign_page(&[bound, &id].concat())].concat())
}

fn parse(text: &str, bound: &[u8], keyring: &Keyring) -> Result<i64, PageTokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PageTokenError)?;
    let (id, tag) = bytes.split_first_chunk::<8>().ok_or(PageTokenError)?;
    let tag: &[u8; 16] = tag.try_into().map_err(|_| PageTokenError)?;
    let genuine = keyring.verify_page(&[bound, id].concat(), tag);
    if genuine { Ok(i64::from_be_bytes(*id)) } else { Err(PageTokenError) }
}
