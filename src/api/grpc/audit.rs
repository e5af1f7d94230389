//! The audit log's messages, to domain types and back. Called by the service alone.

use super::fields;
use crate::api::proto::{
    self, FieldChange, ListTokenEventsRequest, ListTokenEventsResponse, TokenEvent, TokenEventKind,
};
use crate::domain::audit_context::TraceId;
use crate::domain::event::{self, Actor, Attribution, EventKind};
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

fn event(event: event::TokenEvent) -> TokenEvent {
    TokenEvent {
        event_id: event.id,
        event_time: Some(fields::timestamp(event.event_time)),
        kind: kind(event.kind).into(),
        token_id: event.token_id.map_or_else(String::new, |id| id.to_string()),
        organization_id: event.organization_id.as_str().to_owned(),
        user_id: event.user_id.as_str().to_owned(),
        owner_kind: proto::OwnerKind::from(event.owner_kind).into(),
        actor: event.actor,
        attribution: attribution(event.acting_user.as_ref().map(|(_, attribution)| *attribution)).into(),
        acting_user: event.acting_user.map(|(user, _)| user).unwrap_or_default(),
        trace_id: event.trace_id.map_or_else(String::new, |id| TraceId(id).to_string()),
        changes: event.changes.into_iter().map(change).collect(),
    }
}

fn change(change: event::FieldChange) -> FieldChange {
    FieldChange {
        field: change.field,
        old_value: change.old.unwrap_or_default(),
        new_value: change.new.unwrap_or_default(),
    }
}

const fn attribution(attribution: Option<Attribution>) -> proto::Attribution {
    match attribution {
        None => proto::Attribution::Unspecified,
        Some(Attribution::Proven) => proto::Attribution::Proven,
        Some(Attribution::Vouched) => proto::Attribution::Vouched,
        Some(Attribution::Claimed) => proto::Attribution::Claimed,
    }
}

const fn kind(kind: EventKind) -> TokenEventKind {
    match kind {
        EventKind::Created => TokenEventKind::Created,
        EventKind::Updated => TokenEventKind::Updated,
        EventKind::Rotated => TokenEventKind::Rotated,
        EventKind::Revoked => TokenEventKind::Revoked,
        EventKind::Disabled => TokenEventKind::Disabled,
        EventKind::Enabled => TokenEventKind::Enabled,
        EventKind::ExpiresSoon => TokenEventKind::ExpiresSoon,
        EventKind::Purged => TokenEventKind::Purged,
        EventKind::UserDisabled => TokenEventKind::UserDisabled,
        EventKind::UserEnabled => TokenEventKind::UserEnabled,
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
