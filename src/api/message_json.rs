//! Messages of the contract as JSON, field by field as the contract declares them: one that is added to the contract
//! is included without a change here. Used by the commands and by the console's export.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use prost_types::{Duration, Timestamp};
use serde::{Serialize, Serializer};

use super::proto::FILE_DESCRIPTOR_SET;

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";

/// The fields of a token that are included even when they are empty, as in an answer to a caller that may not see
/// the whole token.
pub(crate) const ALWAYS_OF_TOKEN: [&str; 6] =
    ["id", "organization_id", "user_id", "name", "state", "created_by"];

/// The same of an event.
pub(crate) const ALWAYS_OF_EVENT: [&str; 6] =
    ["event_id", "kind", "organization_id", "user_id", "owner_kind", "actor"];

/// The same of a user.
pub(crate) const ALWAYS_OF_USER: [&str; 5] =
    ["organization_id", "user_id", "owner_kind", "active_count", "token_count"];

/// The same of a plan.
pub(crate) const ALWAYS_OF_PLAN: [&str; 3] = ["name", "organization_id", "updated_by"];

static CONTRACT: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok());

/// A message as JSON: the fields that are set, and those that are always included, in the order of the contract.
pub(crate) struct MessageJson(Vec<(FieldDescriptor, Value)>);

impl MessageJson {
    /// Reads the fields of the message `tokend.v1.NAME` of the contract. No fields: the contract has no such message,
    /// which the tests rule out for every name in use.
    pub(crate) fn new<M: Message>(name: &str, message: &M, always: &[&str]) -> Self {
        Self(Self::read(name, message, always).unwrap_or_default())
    }

    fn read<M: Message>(name: &str, message: &M, always: &[&str]) -> Option<Vec<(FieldDescriptor, Value)>> {
        let descriptor = CONTRACT.as_ref()?.get_message_by_name(&format!("tokend.v1.{name}"))?;
        let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec()).ok()?;
        let descriptor: MessageDescriptor = message.descriptor();
        let included = |field: &FieldDescriptor| message.has_field(field) || always.contains(&field.name());
        let fields = descriptor.fields().filter(included);
        Some(fields.map(|field| (field.clone(), message.get_field(&field).into_owned())).collect())
    }

    /// Returns each field with its value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = FieldJson<'_>> {
        self.0.iter().map(|(field, value)| FieldJson { field: field.clone(), value })
    }
}

impl Serialize for MessageJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields().map(|json| (json.field.json_name().to_owned(), json)))
    }
}

/// The value of a field as JSON, as the protobuf mapping converts it.
pub(crate) struct FieldJson<'a> {
    /// The field.
    pub(crate) field: FieldDescriptor,
    value: &'a Value,
}

impl FieldJson<'_> {
    /// Returns a time; `None`: the value is something else.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        let message = self.value.as_message().filter(|message| message.descriptor().full_name() == TIMESTAMP);
        message?.transcode_to().ok()
    }

    fn of<'a>(&self, value: &'a Value) -> FieldJson<'a> {
        FieldJson { field: self.field.clone(), value }
    }
}

impl Serialize for FieldJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::String(text) => serializer.serialize_str(text),
            Value::Bool(is) => serializer.serialize_bool(*is),
            Value::I32(number) => serializer.serialize_i32(*number),
            Value::U32(number) => serializer.serialize_u32(*number),
            // 64 bits are more than JavaScript's numbers hold.
            Value::I64(number) => serializer.collect_str(number),
            Value::U64(number) => serializer.collect_str(number),
            Value::EnumNumber(number) => match self.field.kind() {
                Kind::Enum(known) => match known.get_value(*number) {
                    Some(value) => serializer.serialize_str(value.name()),
                    None => serializer.collect_str(number),
                },
                _ => serializer.collect_str(number),
            },
            Value::List(values) => serializer.collect_seq(values.iter().map(|value| self.of(value))),
            Value::Map(entries) => {
                // Sorted, so that the same message is always shown alike.
                let entries = entries.iter().filter_map(|(key, value)| Some((key.as_str()?, self.of(value))));
                serializer.collect_map(entries.collect::<BTreeMap<_, _>>())
            }
            Value::Message(message) => match message.descriptor().full_name() {
                TIMESTAMP => match message.transcode_to::<Timestamp>() {
                    Ok(time) => serializer.collect_str(&time),
                    Err(_) => serializer.serialize_none(),
                },
                DURATION => match message.transcode_to::<Duration>() {
                    Ok(duration) => serializer.collect_str(&duration),
                    Err(_) => serializer.serialize_none(),
                },
                _ => serializer.collect_map(
                    message
                        .fields()
                        .map(|(field, value)| (field.json_name().to_owned(), FieldJson { field, value })),
                ),
            },
            _ => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokend_client::proto::{Attribution, FieldChange, TokenEvent, TokenEventKind};

    use super::*;

    #[test]
    fn an_event_has_the_fields_that_are_set_and_those_that_are_always_included() {
        let mut event = TokenEvent {
            event_id: 9_007_199_254_740_993,
            event_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            kind: TokenEventKind::Updated.into(),
            user_id: "ada \"l\"".to_owned(),
            attribution: Attribution::Claimed.into(),
            owner_kind: 99,
            changes: vec![FieldChange { new_value: "b".to_owned(), ..FieldChange::default() }],
            ..TokenEvent::default()
        };
        let text = |event: &TokenEvent| {
            serde_json::to_string(&MessageJson::new("TokenEvent", event, &ALWAYS_OF_EVENT)).unwrap()
        };

        assert_eq!(
            text(&event),
            "{\"eventId\":\"9007199254740993\",\"eventTime\":\"2023-11-14T22:13:20.500Z\",\
             \"kind\":\"TOKEN_EVENT_KIND_UPDATED\",\"organizationId\":\"\",\"userId\":\"ada \\\"l\\\"\",\
             \"actor\":\"\",\"changes\":[{\"newValue\":\"b\"}],\"attribution\":\"ATTRIBUTION_CLAIMED\",\
             \"ownerKind\":\"99\"}"
        );
        event.changes[0].field = "name".to_owned();
        event.changes[0].old_value = "a".to_owned();
        assert!(text(&event).contains("[{\"field\":\"name\",\"oldValue\":\"a\",\"newValue\":\"b\"}]"));
    }

    #[test]
    fn the_fields_that_are_always_included_exist() {
        let all = |name, always: &[&str]| {
            let message =
                CONTRACT.as_ref().unwrap().get_message_by_name(&format!("tokend.v1.{name}")).unwrap();
            always.iter().all(|field| message.get_field_by_name(field).is_some())
        };

        assert!(all("Token", &ALWAYS_OF_TOKEN));
        assert!(all("TokenEvent", &ALWAYS_OF_EVENT));
        assert!(all("User", &ALWAYS_OF_USER));
        assert!(all("Plan", &ALWAYS_OF_PLAN));
    }
}
