//! Generates `Debug` for messages with fields that the contract marks `debug_redact`: a secret, or a request id, which is
//! as sensitive. Used by the build script.

use std::fmt::Write as _;

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, Value};

/// The messages that need no other `Debug`, and the code of the one that they get.
pub(crate) struct Redacted {
    pub(crate) messages: Vec<String>,
    pub(crate) code: String,
}

/// The names of fields that carry what must not be shown.
const CONFIDENTIAL: [&str; 2] = ["secret", "request_id"];

/// Finds the messages, with their full names, and generates their `Debug`.
///
/// # Panics
/// A confidential field is not marked.
pub(crate) fn redacted(contract: &DescriptorPool) -> Redacted {
    let messages: Vec<_> =
        contract.all_messages().filter(|message| message.fields().any(|field| is_redacted(&field))).collect();
    let code = messages.iter().map(debug).collect();
    Redacted { messages: messages.iter().map(|message| message.full_name().to_owned()).collect(), code }
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let is_marked =
        options.get_field_by_name("debug_redact").is_some_and(|value| *value == Value::Bool(true));
    assert!(is_marked || !CONFIDENTIAL.contains(&field.name()), "mark {} debug_redact", field.full_name());
    is_marked
}

/// Returns whether a field is none of a choice. An `optional` field is the only one of a choice that protoc makes up.
fn is_alone(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_none_or(|choice| choice.is_synthetic())
}

/// Generates the `Debug` of a message and of its choices (`oneof`).
fn debug(message: &MessageDescriptor) -> String {
    let name = message.name();
    let mut shown = String::new();
    for field in message.fields().filter(is_alone) {
        let value =
            if is_redacted(&field) { "&REDACTED".to_owned() } else { format!("&self.{}", field.name()) };
        let _ = write!(shown, ".field({:?}, {value})", field.name());
    }
    let mut choices = String::new();
    for choice in message.oneofs().filter(|choice| !choice.is_synthetic()) {
        let _ = write!(shown, ".field({0:?}, &self.{0})", choice.name());
        let mut arms = String::new();
        for field in choice.fields() {
            let variant = camel_case(field.name());
            let (bound, value) = if is_redacted(&field) { ("_", "&REDACTED") } else { ("value", "value") };
            let _ = write!(
                arms,
                "Self::{variant}({bound}) => f.debug_tuple({variant:?}).field({value}).finish(),"
            );
        }
        let path = format!("{}::{}", snake_case(name), camel_case(choice.name()));
        choices += &implementation(&path, &format!("match self {{ {arms} }}"));
    }
    implementation(name, &format!("f.debug_struct({name:?}){shown}.finish()")) + &choices
}

fn implementation(path: &str, body: &str) -> String {
    format!(
        "impl ::core::fmt::Debug for super::proto::{path} {{
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{ {body} }}
         }}\n"
    )
}

fn camel_case(name: &str) -> String {
    let words = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}
