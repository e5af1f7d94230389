//! The entries of the audit log: what happened to a token, and which fields changed. Called by the
//! store, which writes and reads it, and by every response that contains it. Knows no secrets: a token
//! has none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::token::Value;
use super::users::Disabling;
use super::{FieldError, Grant, OrganizationId, OwnerKind, Principal, Scope, Token, UserId};
use crate::secret::TokenId;

/// What happened to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created, by a call or as the successor of a rotation.
    Created,
    /// Its fields were changed.
    Updated,
    /// A successor was made for it.
    Rotated,
    /// It was revoked.
    Revoked,
    /// It was disabled.
    Disabled,
    /// It was enabled again.
    Enabled,
    /// It will expire soon.
    ExpiresSoon,
    /// It was deleted, long after its expiration or revocation.
    Purged,
    /// Its user was disabled: an event of the user.
    UserDisabled,
    /// Its user was enabled again: an event of the user.
    UserEnabled,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Created,
        Self::Updated,
        Self::Rotated,
        Self::Revoked,
        Self::Disabled,
        Self::Enabled,
        Self::ExpiresSoon,
        Self::Purged,
        Self::UserDisabled,
        Self::UserEnabled,
    ];

    /// Returns the kind's lower-case name, as stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::ExpiresSoon => "expires_soon",
            Self::Purged => "purged",
            Self::UserDisabled => "user_disabled",
            Self::UserEnabled => "user_enabled",
        }
    }

    /// Returns whether it happens to a user, not to a token.
    #[must_use]
    pub const fn is_of_user(self) -> bool {
        matches!(self, Self::UserDisabled | Self::UserEnabled)
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// How the person behind an event is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// By a credential of the person's own.
    Proven,
    /// By a portal session, for which the actor vouches.
    Vouched,
    /// The caller said so.
    Claimed,
}

impl Attribution {
    /// Returns its lower-case name, as stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Vouched => "vouched",
            Self::Claimed => "claimed",
        }
    }

    /// Returns the one with this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Proven, Self::Vouched, Self::Claimed]
            .into_iter()
            .find(|attribution| attribution.word() == word)
    }
}

/// The actor of events that no caller caused.
const TOKEND: &str = "tokend";

/// The maximum length of an actor, in bytes.
const MAX_ACTOR_BYTES: usize = 300;

/// The actor of an event: a [`Principal`], or tokend itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Box<str>);

impl Actor {
    /// Parses the text of a [`Principal`], or `tokend`.
    ///
    /// # Errors
    /// The text is neither, or is too long.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.len() > MAX_ACTOR_BYTES {
            return Err(FieldError::TooLong { limit: MAX_ACTOR_BYTES, unit: "bytes" });
        }
        if text.chars().any(char::is_control) {
            return Err(FieldError::ControlCharacter);
        }
        if text == TOKEND || Principal::parse(text).is_some() {
            return Ok(Self(text.into()));
        }
        Err(FieldError::Rule(
            "is not an actor: use a token's id, cert: and a certificate's name, bootstrap or tokend",
        ))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of a field before and after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field's name in the contract.
    pub field: String,
    /// The old value; absent: it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The new value; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEvent {
    /// Its number, in the order of writing.
    pub id: i64,
    /// When it happened.
    pub event_time: OffsetDateTime,
    /// What happened.
    pub kind: EventKind,
    /// The token; `None`: it is an event of the user.
    pub token_id: Option<TokenId>,
    /// The token's organization.
    pub organization_id: OrganizationId,
    /// The token's user.
    pub user_id: UserId,
    /// What the user id names.
    pub owner_kind: OwnerKind,
    /// Who did it: a principal, or `tokend` for its own jobs.
    pub actor: String,
    /// The person behind it, and how that is known.
    pub acting_user: Option<(String, Attribution)>,
    /// The trace in which it was done.
    pub trace_id: Option<[u8; 16]>,
    /// The changed fields; empty if they were not recorded.
    pub changes: Vec<FieldChange>,
}

/// The fields that are not recorded as changes: those that the event has itself or its kind and time say,
/// and the last use, which is no change.
const NOT_RECORDED: [&str; 7] =
    ["id", "organization_id", "user_id", "owner_kind", "create_time", "created_by", "last_use_time"];

/// Returns what changed between two states of a token; without an old one, all its fields with a value.
#[must_use]
pub fn field_changes(old: Option<&Token>, new: &Token) -> Vec<FieldChange> {
    let before = old.map(|token| token.fields().map(|field| recorded(&field.value))).unwrap_or_default();
    let changed = new.fields().into_iter().zip(before).filter_map(|(field, old)| {
        let new = recorded(&field.value);
        let recorded = old != new && !NOT_RECORDED.contains(&field.name);
        recorded.then(|| FieldChange { field: field.name.to_owned(), old, new })
    });
    changed.collect()
}

/// Returns what a user's disabling, or the end of one, changes about each of the user's tokens.
#[must_use]
pub fn changes_of_tokens(old: Option<&Disabling>, new: Option<&Disabling>) -> Vec<FieldChange> {
    disabling_changes("user_disable_time", old, new)
}

/// Returns what a user's disabling, or the end of one, changes about the user.
#[must_use]
pub fn changes_of_user(old: Option<&Disabling>, new: Option<&Disabling>) -> Vec<FieldChange> {
    disabling_changes("disable_time", old, new)
}

fn disabling_changes(field: &str, old: Option<&Disabling>, new: Option<&Disabling>) -> Vec<FieldChange> {
    let time = |disabling: Option<&Disabling>| disabling.map(|disabling| rfc3339(disabling.disable_time));
    let time = FieldChange { field: field.to_owned(), old: time(old), new: time(new) };
    let reason = new.map(|disabling| disabling.reason.clone()).filter(|reason| !reason.is_empty());
    let reason =
        reason.map(|new| FieldChange { field: "disable_reason".to_owned(), old: None, new: Some(new) });
    std::iter::once(time).chain(reason).collect()
}

/// Formats a value: lists, whose values contain no spaces, with spaces between them; labels as one JSON
/// object, so that no value can be mistaken for another label. `None`: it is not set.
fn recorded(value: &Value<'_>) -> Option<String> {
    let text = match value {
        Value::Text(text) => text.clone().into_owned(),
        Value::Scopes(scopes) => scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
        Value::Networks(networks) => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Value::Labels(labels) => {
            let labels: BTreeMap<&str, &str> = labels.iter().collect();
            // Cannot fail for strings.
            if labels.is_empty() { String::new() } else { serde_json::to_string(&labels).unwrap_or_default() }
        }
        Value::Time(time) => time.map(rfc3339).unwrap_or_default(),
        Value::Grant(grant) => grant.map(grant_text).unwrap_or_default(),
        Value::OwnerKind(kind) => kind.word().to_owned(),
        Value::Refusal(_) => String::new(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Formats a grant as one JSON object with the fields that are set, so that no value can be mistaken for another.
fn grant_text(grant: &Grant) -> String {
    let texts = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.into());
    let flag = |is: bool| is.then(|| true.into());
    let longest = grant.longest_lifetime.map(|longest| format!("{}s", longest.whole_seconds()).into());
    let fields: [(&str, Option<serde_json::Value>); 7] = [
        ("scopes", texts(grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect())),
        ("users", texts(grant.users.ids().map(str::to_owned).collect())),
        ("user_prefixes", texts(grant.users.prefixes().map(str::to_owned).collect())),
        ("all_users", flag(grant.users.is_all())),
        ("longest_lifetime", longest),
        ("networks", texts(grant.networks.iter().map(ToString::to_string).collect())),
        ("may_grant_self", flag(grant.may_grant_self)),
    ];
    let fields: BTreeMap<_, _> =
        fields.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
    // Cannot fail for strings.
    serde_json::to_string(&fields).unwrap_or_default()
}

fn rfc3339(time: OffsetDateTime) -> String {
    // Fails only for years that no token has.
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Labels, TokenName};
    use tokend_core::fixtures::token;

    #[test]
    fn labels_with_the_same_joined_text_are_different_values() {
        let labelled = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Token { labels: Labels::parse(labels.collect::<BTreeMap<_, _>>()).unwrap(), ..token(&[]) }
        };
        let two = labelled(&[("owner", "mallory"), ("team", "x")]);
        let one = labelled(&[("owner", "mallory team=x")]);

        let [change] = &field_changes(Some(&two), &one)[..] else { panic!("no change, or several") };
        assert_eq!(change.old.as_deref(), Some(r#"{"owner":"mallory","team":"x"}"#));
        assert_eq!(change.new.as_deref(), Some(r#"{"owner":"mallory team=x"}"#));
    }

    #[test]
    fn a_change_names_the_fields_that_differ_with_both_values() {
        let old = token(&["a", "b:*"]);
        let mut new = old.clone();
        new.name = TokenName::parse("other").unwrap();
        new.expire_time = Some(old.create_time);

        let changes = field_changes(Some(&old), &new);

        let named: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(named, ["name", "expire_time"]);
        assert_eq!(changes[0].old.as_deref(), Some(old.name.as_str()));
        assert_eq!(changes[0].new.as_deref(), Some("other"));
        assert_eq!(changes[1].old, None);
        assert!(field_changes(Some(&old), &old).is_empty());
        assert!(
            field_changes(None, &old)
                .iter()
                .any(|c| c.field == "scopes" && c.new.as_deref() == Some("a b:*"))
        );
    }
}
