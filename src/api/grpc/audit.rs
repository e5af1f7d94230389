//! The requests of the audit log to domain types, and its answers. Called by the service alone.

use super::fields;
use crate::api::events::{event, kind};
use crate::api::proto::{ListTokenEventsRequest, ListTokenEventsResponse};
use crate::domain::event::{Actor, EventKind};
use crate::domain::{FieldError, OrganizationId, UserId, Violations};
use crate::tokens::events::{EventPage, ListEvents};

pub(super) fn list_request(message: ListTokenEventsRequest) -> Result<ListEvents, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", fields::optional(&message.organization_id, OrganizationId::parse));
    let token_id = violations.take("token_id", fields::optional(&message.token_id, fields::token_id));
    let user_id = violations.take("user_id", fields::optional(&message.user_id, UserId::parse));
    let owner_kind = violations.take("owner_kind", fields::owner_kind(message.owner_kind));
    let page_size = violations.take("page_size", fields::page_size(message.page_size));
    let mut bound = |field, time: Option<prost_types::Timestamp>| {
        violations.take(field, time.map(fields::whole_instant).transpose())
    };
    let occurred_after = bound("occurred_after", message.occurred_after);
    let occurred_before = bound("occurred_before", message.occurred_before);
    let actor = violations.take("actor", fields::optional(&message.actor, Actor::parse));
    let kinds = violations.take("kinds", event_kinds(&message.kinds));
    let request = (|| {
        Some(ListEvents {
            organization_id: organization_id?,
            token_id: token_id?,
            user_id: user_id?,
            owner_kind: owner_kind?,
            occurred_after: occurred_after?,
            occurred_before: occurred_before?,
            actor: actor?,
            kinds: kinds?,
            page_size: page_size?,
            page_token: Some(message.page_token).filter(|text| !text.is_empty()),
        })
    })();
    violations.finish(request)
}

pub(super) fn list_response(page: EventPage) -> ListTokenEventsResponse {
    ListTokenEventsResponse {
        events: page.events.into_iter().map(event).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
    }
}

/// Returns each kind that is named, once.
fn event_kinds(numbers: &[i32]) -> Result<Vec<EventKind>, FieldError> {
    if numbers.len() > fields::MAX_NAMES {
        return Err(FieldError::TooLong { limit: fields::MAX_NAMES, unit: "kinds" });
    }
    let named = |of: EventKind| numbers.contains(&kind(of).into());
    let known = |number: &i32| EventKind::ALL.into_iter().any(|of| i32::from(kind(of)) == *number);
    if numbers.iter().all(known) {
        Ok(EventKind::ALL.into_iter().filter(|of| named(*of)).collect())
    } else {
        Err(FieldError::Rule("has an unknown kind"))
    }
}
