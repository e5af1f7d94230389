//! What the audit log has of a token, as its page shows it. Pure functions over events, used by the page of a token.

use time::OffsetDateTime;

use crate::api::console::moments::Moment;
use crate::api::console::pages::{shortened, visible};
use crate::domain::event::{EventKind, FieldChange, TokenEvent};
use crate::secret::TokenId;

/// How many events a page shows.
pub(super) const EVENTS_PER_PAGE: u32 = 15;

/// How much of a value is shown, in characters: lists can be long.
const MAX_VALUE_CHARACTERS: usize = 100;

/// An event as it is shown.
pub(super) struct EventView {
    pub(super) word: &'static str,
    pub(super) at: Moment,
    pub(super) actor: String,
    /// Whether the actor is a token, which has a page.
    pub(super) by_token: bool,
    /// The person behind it, and how that is known.
    pub(super) acting_user: Option<(String, &'static str)>,
    pub(super) changes: Vec<ChangeView>,
    /// Whether a seal covers it.
    pub(super) is_sealed: bool,
}

/// A changed field as it is shown.
pub(super) struct ChangeView {
    pub(super) field: String,
    pub(super) old: String,
    pub(super) new: String,
}

impl EventView {
    /// Returns an event as it is shown at `now`; seals cover events up to `sealed_to`.
    pub(super) fn new(event: &TokenEvent, now: OffsetDateTime, sealed_to: Option<i64>) -> Self {
        Self {
            word: word(event.kind),
            at: Moment::new(event.event_time, now),
            by_token: TokenId::parse(&event.actor).is_ok(),
            actor: visible(&event.actor),
            acting_user: event.acting_user.as_ref().map(|(user, known)| (visible(user), known.word())),
            // What a new token has stands above.
            changes: match event.kind {
                EventKind::Created => Vec::new(),
                _ => event.changes.iter().map(ChangeView::new).collect(),
            },
            is_sealed: sealed_to.is_some_and(|last| event.id <= last),
        }
    }
}

impl ChangeView {
    fn new(change: &FieldChange) -> Self {
        let value =
            |value: &Option<String>| shortened(value.as_deref().unwrap_or_default(), MAX_VALUE_CHARACTERS);
        Self { field: visible(&field_word(&change.field)), old: value(&change.old), new: value(&change.new) }
    }
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "Created",
        EventKind::Updated => "Changed",
        EventKind::Rotated => "Rotated",
        EventKind::Revoked => "Revoked",
        EventKind::Disabled => "Disabled",
        EventKind::Enabled => "Enabled",
        EventKind::ExpiresSoon => "Warned of its expiration",
        EventKind::Purged => "Deleted",
        EventKind::UserDisabled => "User disabled",
        EventKind::UserEnabled => "User enabled",
    }
}

/// Returns what a field is called on these pages.
fn field_word(field: &str) -> String {
    match field {
        "allowed_cidrs" => "networks".to_owned(),
        "expire_time" => "expires".to_owned(),
        "disable_time" => "disabled".to_owned(),
        "user_disable_time" => "user disabled".to_owned(),
        "revoke_reason" | "disable_reason" => "reason".to_owned(),
        other => other.replace('_', " "),
    }
}
