//! The page of the audit log, and the template that lays it out.

use askama::Template;
use time::OffsetDateTime;

use super::query::{AuditQuery, KINDS};
use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::pages::{Frame, shortened, visible};
use crate::domain::OwnerKind;
use crate::domain::event::{EventKind, TokenEvent};
use crate::secret::TokenId;

/// How many changed fields of an event are shown, and how much of each value.
const MAX_CHANGES_SHOWN: usize = 4;
const MAX_VALUE_CHARACTERS: usize = 60;

/// The audit log.
#[derive(Template)]
#[template(path = "audit/list.html")]
pub(super) struct Audit {
    pub(super) frame: Frame,
    pub(super) query: AuditQuery,
    pub(super) lines: Lines,
    pub(super) problems: Problems,
    /// Whether organizations are shown: to those who see several.
    pub(super) organizations: bool,
    pub(super) events: Vec<EventView>,
    /// The address of the next page.
    pub(super) next: Option<String>,
}

/// An event as it is shown.
pub(super) struct EventView {
    pub(super) at: Moment,
    pub(super) word: &'static str,
    /// Empty: it is an event of the user.
    pub(super) token: String,
    pub(super) user: String,
    pub(super) is_service: bool,
    pub(super) organization: String,
    pub(super) actor: String,
    /// Whether the actor is a token, which has a page.
    pub(super) by_token: bool,
    /// The person behind it, and how that is known.
    pub(super) acting_user: Option<(String, &'static str)>,
    /// Each changed field with its old and its new value.
    pub(super) changes: Vec<(String, String, String)>,
    pub(super) more_changes: usize,
    pub(super) is_sealed: bool,
}

impl EventView {
    /// Returns an event as it is shown at `now`; seals cover events up to `sealed_to`.
    pub(super) fn new(event: &TokenEvent, now: OffsetDateTime, sealed_to: Option<i64>) -> Self {
        // What a new token has stands on its page.
        let changes = if event.kind == EventKind::Created { &[][..] } else { &event.changes };
        let shown =
            |value: &Option<String>| shortened(value.as_deref().unwrap_or_default(), MAX_VALUE_CHARACTERS);
        let fields = changes.iter().take(MAX_CHANGES_SHOWN);
        Self {
            at: Moment::new(event.event_time, now),
            word: KINDS.iter().find(|(kind, _)| *kind == event.kind).map_or("", |(_, word)| word),
            token: event.token_id.map_or_else(String::new, |id| id.to_string()),
            user: visible(event.user_id.as_str()),
            is_service: event.owner_kind == OwnerKind::Service,
            organization: visible(event.organization_id.as_str()),
            by_token: TokenId::parse(&event.actor).is_ok(),
            actor: visible(&event.actor),
            acting_user: event.acting_user.as_ref().map(|(user, known)| (visible(user), known.word())),
            changes: fields
                .map(|change| (visible(&change.field), shown(&change.old), shown(&change.new)))
                .collect(),
            more_changes: changes.len().saturating_sub(MAX_CHANGES_SHOWN),
            is_sealed: sealed_to.is_some_and(|last| event.id <= last),
        }
    }
}
