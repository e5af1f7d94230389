//! Events of the audit log as messages of the contract. Used by gRPC and by the console's export.

use super::proto::{self, FieldChange, TokenEvent, TokenEventKind, timestamp};
use crate::domain::audit_context::TraceId;
use crate::domain::event::{self, Attribution, EventKind};

/// Converts an event.
pub(crate) fn event(event: event::TokenEvent) -> TokenEvent {
    TokenEvent {
        event_id: event.id,
        event_time: Some(timestamp(event.event_time)),
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

/// Converts a kind.
pub(crate) const fn kind(kind: EventKind) -> TokenEventKind {
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
