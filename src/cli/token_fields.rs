//! A token as JSON and for people, field by field as the contract declares them: one that is added to
//! the contract is shown without a change here. Used by every command that prints tokens.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use prost_types::Timestamp;
use serde::{Serialize, Serializer};
use tokend_client::proto;

use super::output::{aligned, rfc3339, to_the_second};
use crate::api::proto::FILE_DESCRIPTOR_SET;

/// The fields that are shown even when they are empty, as in an answer to a caller that may not see the
/// whole token.
const ALWAYS: [&str; 6] = ["id", "organization_id", "user_id", "name", "state", "created_by"];

/// The names for people of the fields whose own names are not shown; those with an empty one are not
/// shown to people.
const LABELS: [(&str, &str); 13] = [
    ("organization_id", "organization"),
    ("user_id", "user"),
    ("labels", "label"),
    ("allowed_cidrs", "networks"),
    ("create_time", "created"),
    ("created_by", ""),
    ("expire_time", "expires"),
    ("last_use_time", "last used"),
    ("revoke_time", "revoked"),
    ("revoke_reason", "reason"),
    ("disable_time", "disabled"),
    ("user_disable_time", "user disabled"),
    ("owner_kind", "owner"),
];

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";

/// The message in the contract. There always is one: a test reads it.
static TOKEN: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let contract = DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok()?;
    contract.get_message_by_name("tokend.v1.Token")
});

/// A token as JSON.
pub(super) struct TokenJson<'a>(&'a proto::Token);

impl<'a> From<&'a proto::Token> for TokenJson<'a> {
    fn from(token: &'a proto::Token) -> Self {
        Self(token)
    }
}

impl Serialize for TokenJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = fields(self.0, &ALWAYS);
        serializer.collect_map(fields.iter().map(|(field, value)| (field.json_name(), json(field, value))))
    }
}

/// Formats a token for people, one field per line.
pub(super) fn token_lines(token: &proto::Token) -> String {
    let mut rows = Vec::new();
    for (field, value) in fields(token, &[&ALWAYS[..], &["expire_time"]].concat()) {
        let label = LABELS.iter().find(|(name, _)| *name == field.name());
        let label = label.map_or_else(|| field.name().replace('_', " "), |(_, label)| (*label).to_owned());
        if label.is_empty() {
            continue;
        }
        let row = |text| vec![label.clone(), text];
        match (field.name(), json(&field, &value)) {
            ("state", _) => rows.push(row(state_word(token))),
            ("expire_time", _) => rows.push(row(expires(token))),
            // Most are persons.
            ("owner_kind", _) if token.owner_kind() == proto::OwnerKind::Service => {
                rows.push(row("service account".to_owned()));
            }
            ("owner_kind", _) => {}
            (_, serde_json::Value::Object(entries)) => {
                rows.extend(entries.iter().map(|(key, value)| row(format!("{key}={}", plain(value)))));
            }
            (_, shown) => rows.push(row(time(&value).map_or_else(|| plain(&shown), to_the_second))),
        }
    }
    aligned(rows)
}

/// Formats a token's expiration for people; without one, `never`.
pub(super) fn expires(token: &proto::Token) -> String {
    token.expire_time.map_or_else(|| "never".to_owned(), to_the_second)
}

/// Returns a state for people: `active`.
pub(super) fn state_word(token: &proto::Token) -> String {
    let name = proto::TokenState::try_from(token.state)
        .map_or_else(|unknown| unknown.0.to_string(), |state| state.as_str_name().to_lowercase());
    name.trim_start_matches("token_state_").to_owned()
}

/// Returns the fields that are set, and those that `always` names, in the order of the contract.
fn fields(token: &proto::Token, always: &[&str]) -> Vec<(FieldDescriptor, Value)> {
    let Some(descriptor) = TOKEN.clone() else { return Vec::new() };
    let fields: Vec<_> = descriptor.fields().collect();
    // What was just encoded can be decoded.
    let Ok(message) = DynamicMessage::decode(descriptor, &*token.encode_to_vec()) else { return Vec::new() };
    let shown = fields.into_iter().filter(|field| message.has_field(field) || always.contains(&field.name()));
    shown.map(|field| (field.clone(), message.get_field(&field).into_owned())).collect()
}

/// Converts a value as the protobuf mapping does.
fn json(field: &FieldDescriptor, value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(is) => (*is).into(),
        Value::I32(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I64(number) => number.to_string().into(),
        Value::U64(number) => number.to_string().into(),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(known) => known.get_value(*number).map(|value| value.name().to_owned()),
            _ => None,
        }
        .unwrap_or_else(|| number.to_string())
        .into(),
        Value::List(values) => values.iter().map(|value| json(field, value)).collect(),
        Value::Map(entries) => {
            // Sorted, so that the same token is always shown alike.
            let entries: BTreeMap<_, _> =
                entries.iter().filter_map(|(key, value)| Some((key.as_str()?, json(field, value)))).collect();
            entries.into_iter().collect()
        }
        Value::Message(message) if message.descriptor().full_name() == DURATION => duration(message),
        Value::Message(message) if message.descriptor().full_name() != TIMESTAMP => message
            .fields()
            .map(|(field, value)| (field.json_name().to_owned(), json(&field, value)))
            .collect(),
        value => time(value).map(rfc3339).into(),
    }
}

/// Formats a duration of whole seconds.
fn duration(message: &DynamicMessage) -> serde_json::Value {
    let duration = message.transcode_to::<prost_types::Duration>();
    duration.map(|duration| format!("{}s", duration.seconds)).ok().into()
}

/// Returns a time; `None`: the value is something else.
fn time(value: &Value) -> Option<Timestamp> {
    let message = value.as_message().filter(|message| message.descriptor().full_name() == TIMESTAMP);
    message?.transcode_to().ok()
}

/// Formats a value for people.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::json_line;

    #[test]
    fn json_names_fields_states_and_times_as_protobuf_does() {
        let token = proto::Token {
            id: "id".to_owned(),
            user_id: "u".to_owned(),
            state: proto::TokenState::Active.into(),
            expire_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            ..proto::Token::default()
        };

        let line = json_line(&TokenJson::from(&token)).unwrap();

        assert_eq!(
            line,
            "{\"id\":\"id\",\"organizationId\":\"\",\"userId\":\"u\",\"name\":\"\",\
             \"state\":\"TOKEN_STATE_ACTIVE\",\"createdBy\":\"\",\
             \"expireTime\":\"2023-11-14T22:13:20.500Z\"}\n"
        );
    }

    #[test]
    fn people_see_each_field_on_a_line_of_its_own() {
        let token = proto::Token {
            id: "id".to_owned(),
            scopes: vec!["a".to_owned(), "b:*".to_owned()],
            labels: [("team".to_owned(), "x".to_owned()), ("a".to_owned(), "y".to_owned())].into(),
            state: 99,
            grant: Some(proto::Grant {
                users: vec!["ada".to_owned(), "bob".to_owned()],
                longest_lifetime: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                ..proto::Grant::default()
            }),
            last_use_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            ..proto::Token::default()
        };

        assert_eq!(
            token_lines(&token),
            "id            id\norganization\nuser\nname\nscopes        a b:*\nlabel         a=y\n\
             label         team=x\nstate         99\nexpires       never\n\
             last used     2023-11-14T22:13:20Z\n\
             grant         longestLifetime=60s\ngrant         users=ada bob\n"
        );
    }
}
