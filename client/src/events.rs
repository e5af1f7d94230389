//! The audit log: the types of its call, and the call.

use time::OffsetDateTime;
use tokend_core::domain::{OrganizationId, OwnerKind, Principal, UserId};
use tokend_core::secret::TokenId;

use crate::client::Client;
use crate::enums::{Attribution, TokenEventKind};
use crate::error::Error;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::retry::Repeatable;
use crate::token::{owner_kind, time, timestamp};

/// The actor of what tokend does by itself.
const TOKEND: &str = "tokend";

/// Selects events; the default is all that the caller can reach. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventListing {
    /// Only those of this organization's tokens.
    pub organization_id: Option<OrganizationId>,
    /// Only those of this token, which may have been deleted.
    pub token_id: Option<TokenId>,
    /// Only those of this user's tokens.
    pub user_id: Option<String>,
    /// Only those of this kind of owner.
    pub owner_kind: Option<OwnerKind>,
    /// Only those at this time or later.
    pub occurred_after: Option<OffsetDateTime>,
    /// Only those before this time.
    pub occurred_before: Option<OffsetDateTime>,
    /// Only those by this actor: the text of a [`Principal`], or `tokend` for what it does by itself.
    pub actor: Option<String>,
    /// Only those of these kinds; empty: of all.
    pub kinds: Vec<TokenEventKind>,
    /// The most events in a page; 0: tokend's default.
    pub page_size: u16,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Its number, in the order of writing.
    pub id: i64,
    /// When it happened, by the database's clock.
    pub event_time: OffsetDateTime,
    /// What happened; `None`: a kind that is newer than this client.
    pub kind: Option<TokenEventKind>,
    /// The token; `None`: it happened to the user.
    pub token_id: Option<TokenId>,
    /// The token's organization.
    pub organization_id: OrganizationId,
    /// The token's user.
    pub user_id: UserId,
    /// What the user id names.
    pub owner_kind: OwnerKind,
    /// The caller that did it; `None`: tokend by itself.
    pub actor: Option<Principal>,
    /// The person behind it; see [`Client::acting_for`].
    pub acting_user: Option<String>,
    /// How that person is known; `None`: in a way that is newer than this client, or no person is known.
    pub attribution: Option<Attribution>,
    /// The call's trace id, 32 hexadecimal digits; `None`: there was no call.
    pub trace_id: Option<String>,
    /// The changed fields.
    pub changes: Vec<FieldChange>,
}

/// One field of a token before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// Its name in the contract.
    pub field: String,
    /// Its old value; `None`: it had none.
    pub old: Option<String>,
    /// Its new value; `None`: it has none.
    pub new: Option<String>,
}

impl Client {
    /// Reads a page of the audit log: the first, or the one after a previous page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_token_events(
        &self,
        listing: &EventListing,
        after: Option<&str>,
    ) -> Result<Page<TokenEvent>, Error> {
        let message = listing.request(after);
        let page =
            self.run(Repeatable::Yes, message, |mut raw, request| async move {
                raw.list_token_events(request).await
            })
            .await?;
        Page::read(page.events, page.next_page_token, TokenEvent::try_from)
    }

    /// Reads the audit log, page by page.
    #[must_use]
    pub fn token_event_pages(&self, listing: &EventListing) -> Pages<TokenEvent> {
        let (client, listing) = (self.clone(), listing.clone());
        Pages::new(move |after| {
            let (client, listing) = (client.clone(), listing.clone());
            async move { client.list_token_events(&listing, after.as_deref()).await }
        })
    }
}

impl EventListing {
    /// Builds the request for the page after `after`.
    fn request(&self, after: Option<&str>) -> proto::ListTokenEventsRequest {
        let organization_id = self.organization_id.as_ref().map(|id| id.as_str().to_owned());
        proto::ListTokenEventsRequest {
            organization_id: organization_id.unwrap_or_default(),
            token_id: self.token_id.map(|id| id.to_string()).unwrap_or_default(),
            user_id: self.user_id.clone().unwrap_or_default(),
            page_size: self.page_size.into(),
            page_token: after.unwrap_or_default().to_owned(),
            occurred_after: self.occurred_after.map(timestamp),
            occurred_before: self.occurred_before.map(timestamp),
            actor: self.actor.clone().unwrap_or_default(),
            kinds: self.kinds.iter().map(|kind| kind.value().into()).collect(),
            owner_kind: self.owner_kind.map_or(0, |kind| proto::OwnerKind::from(kind).into()),
        }
    }
}

impl TryFrom<proto::TokenEvent> for TokenEvent {
    type Error = Error;

    fn try_from(message: proto::TokenEvent) -> Result<Self, Error> {
        fn field<T, E>(name: &'static str, parsed: Result<T, E>) -> Result<T, Error> {
            parsed.map_err(|_| Error::invalid_response(name))
        }
        let actor = match &*message.actor {
            TOKEND => None,
            principal => Some(Principal::parse(principal).ok_or_else(|| Error::invalid_response("actor"))?),
        };
        let kind = TokenEventKind::read(message.kind());
        let attribution = Attribution::read(message.attribution());
        Ok(Self {
            id: message.event_id,
            event_time: time("event_time", message.event_time)?
                .ok_or_else(|| Error::invalid_response("event_time"))?,
            kind,
            token_id: field("token_id", given(message.token_id).map(|id| TokenId::parse(&id)).transpose())?,
            organization_id: field("organization_id", OrganizationId::parse(&message.organization_id))?,
            user_id: field("user_id", UserId::parse(&message.user_id))?,
            owner_kind: owner_kind(message.owner_kind)?,
            actor,
            attribution,
            acting_user: given(message.acting_user),
            trace_id: given(message.trace_id),
            changes: message.changes.into_iter().map(FieldChange::from).collect(),
        })
    }
}

impl From<proto::FieldChange> for FieldChange {
    fn from(message: proto::FieldChange) -> Self {
        Self { field: message.field, old: given(message.old_value), new: given(message.new_value) }
    }
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(actor: &str) -> proto::TokenEvent {
        let id = TokenId::from_bytes([8; 16]).to_string();
        proto::TokenEvent {
            event_time: Some(prost_types::Timestamp::default()),
            kind: 99,
            token_id: id,
            organization_id: "acme".to_owned(),
            user_id: "ada".to_owned(),
            actor: actor.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn events_of_tokend_itself_have_no_actor_and_an_unknown_actor_is_an_error() {
        let event = TokenEvent::try_from(message(TOKEND)).unwrap();
        assert_eq!((event.actor, event.kind), (None, None));
        assert_eq!((event.acting_user, event.trace_id), (None, None));
        assert_eq!(event.owner_kind, OwnerKind::User, "also of a server that knows no kinds");
        let service = proto::TokenEvent { owner_kind: proto::OwnerKind::Service.into(), ..message(TOKEND) };
        assert_eq!(TokenEvent::try_from(service).unwrap().owner_kind, OwnerKind::Service);
        let bootstrap = TokenEvent::try_from(message("bootstrap")).unwrap();
        assert_eq!(bootstrap.actor, Some(Principal::Bootstrap));
        for bad in ["", "somebody"] {
            assert_eq!(
                TokenEvent::try_from(message(bad)).unwrap_err().kind(),
                crate::ErrorKind::InvalidResponse
            );
        }
    }
}
