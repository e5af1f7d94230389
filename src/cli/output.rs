//! The output of the operator's commands: tables for people, JSON for scripts. JSON follows the
//! protobuf mapping (camelCase, RFC 3339 times, enum names, no unset fields). Names come from other
//! people, so terminal control characters are escaped.

use std::collections::BTreeMap;
use std::io::{self, Write};

use prost_types::Timestamp;
use serde::Serialize;
use tokend_client::proto;
use unicode_width::UnicodeWidthStr as _;

use super::CommandError;
use crate::domain::text::is_escaped;

/// A token as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenJson<'a> {
    id: &'a str,
    organization_id: &'a str,
    user_id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_cidrs: &'a [String],
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_use_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke_time: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    revoke_reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rotated_from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_time: Option<String>,
}

impl<'a> From<&'a proto::Token> for TokenJson<'a> {
    fn from(token: &'a proto::Token) -> Self {
        let labels = token.labels.iter();
        Self {
            id: &token.id,
            organization_id: &token.organization_id,
            user_id: &token.user_id,
            name: &token.name,
            scopes: &token.scopes,
            labels: labels.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            allowed_cidrs: &token.allowed_cidrs,
            state: state_name(token),
            create_time: token.create_time.map(rfc3339),
            created_by: &token.created_by,
            expire_time: token.expire_time.map(rfc3339),
            last_use_time: token.last_use_time.map(rfc3339),
            revoke_time: token.revoke_time.map(rfc3339),
            revoke_reason: &token.revoke_reason,
            rotated_from: &token.rotated_from,
            disable_time: token.disable_time.map(rfc3339),
        }
    }
}

/// Formats a time as RFC 3339 in UTC, with as many digits as needed.
pub(super) fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// Formats a time for people: RFC 3339 in UTC, to the second.
pub(super) fn to_the_second(time: Timestamp) -> String {
    let whole = Timestamp { nanos: 0, ..time };
    whole.to_string()
}

/// Returns a state's enum name, or the number of an unknown one.
fn state_name(token: &proto::Token) -> String {
    proto::TokenState::try_from(token.state)
        .map_or_else(|unknown| unknown.0.to_string(), |state| state.as_str_name().to_owned())
}

/// Returns a state for people: `active`.
pub(super) fn state_word(token: &proto::Token) -> String {
    let name = state_name(token).to_lowercase();
    name.trim_start_matches("token_state_").to_owned()
}

/// Formats a token for people, one field per line.
pub(super) fn token_lines(token: &proto::Token) -> String {
    let mut rows: Vec<[String; 2]> = vec![
        ["id".to_owned(), token.id.clone()],
        ["organization".to_owned(), token.organization_id.clone()],
        ["user".to_owned(), token.user_id.clone()],
        ["name".to_owned(), token.name.clone()],
        ["state".to_owned(), state_word(token)],
    ];
    if !token.scopes.is_empty() {
        rows.push(["scopes".to_owned(), token.scopes.join(" ")]);
    }
    if !token.allowed_cidrs.is_empty() {
        rows.push(["networks".to_owned(), token.allowed_cidrs.join(" ")]);
    }
    let labels: BTreeMap<_, _> = token.labels.iter().collect();
    for (key, value) in labels {
        rows.push(["label".to_owned(), format!("{key}={value}")]);
    }
    if let Some(time) = token.create_time {
        rows.push(["created".to_owned(), to_the_second(time)]);
    }
    rows.push(["expires".to_owned(), expires(token)]);
    if let Some(time) = token.last_use_time {
        rows.push(["last used".to_owned(), to_the_second(time)]);
    }
    if let Some(time) = token.disable_time {
        rows.push(["disabled".to_owned(), to_the_second(time)]);
    }
    if let Some(time) = token.revoke_time {
        rows.push(["revoked".to_owned(), to_the_second(time)]);
    }
    if !token.revoke_reason.is_empty() {
        rows.push(["reason".to_owned(), token.revoke_reason.clone()]);
    }
    if !token.rotated_from.is_empty() {
        rows.push(["rotated from".to_owned(), token.rotated_from.clone()]);
    }
    aligned(rows.into_iter().map(Vec::from).collect())
}

/// Formats a token's expiration for people; without one, `never`.
pub(super) fn expires(token: &proto::Token) -> String {
    token.expire_time.map_or_else(|| "never".to_owned(), to_the_second)
}

/// Writes one JSON object on one line.
pub(super) fn write_json_line(output: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    output.write_all(json_line(value)?.as_bytes())
}

/// Returns one JSON object on one line, with terminal control characters escaped; only its strings
/// can contain any.
pub(super) fn json_line(value: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        if is_escaped(character) {
            let mut units = [0; 2];
            line.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    Ok(line)
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    written.and_then(|()| output.flush()).map_err(CommandError::Output)
}

/// Writes to standard output what the exit status also says, so that it need not be read.
pub(super) fn print_if_read(text: &str) -> Result<(), CommandError> {
    print(text).or_else(|error| if error.is_broken_pipe() { Ok(()) } else { Err(error) })
}

/// Writes results to standard output, one JSON object per line.
pub(super) fn print_json(values: &[impl Serialize]) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = values.iter().try_for_each(|value| write_json_line(&mut output, value));
    written.and_then(|()| output.flush()).map_err(CommandError::Output)
}

/// Writes a remark to standard error. A failed write is ignored: nothing more can be done.
pub(super) fn remark(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Formats rows under a heading, in aligned columns.
pub(super) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![heading.iter().map(|&name| name.to_owned()).collect()];
    all.extend(rows);
    aligned(all)
}

/// Pads every column but the last to its widest cell, two spaces apart, by the characters' width on
/// a terminal.
pub(super) fn aligned(rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Escapes what a terminal would interpret: control characters, and those that change the writing
/// direction or have no width.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Quotes a text, so that its content cannot be confused with the text around it.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Quotes a text that could be read as more than one column.
pub(super) fn cell(text: &str) -> String {
    if text.contains([' ', '"']) { quoted(text) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_the_places_of_a_terminal_and_lines_end_without_spaces() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        // Width one, two, one with a combining mark of width zero, and an escaped character.
        let rows = vec![row(["é", "x"]), row(["漢字", "x"]), row(["e\u{301}", "x"]), row(["\u{7}", ""])];

        let text = table(&["A", "B"], rows);

        assert_eq!(text, "A      B\né      x\n漢字   x\ne\u{301}      x\n\\u{7}\n");
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        let shown = printable("a\u{1b}[31m\n\u{202e}ü");

        assert_eq!(shown, "a\\u{1b}[31m\\u{a}\\u{202e}ü");
        let mut json = Vec::new();
        write_json_line(&mut json, &"\u{202e}\u{e0041}é\n").unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), "\"\\u202e\\udb40\\udc41é\\n\"\n");
    }

    #[test]
    fn a_text_cannot_end_its_own_quotes() {
        assert_eq!(quoted("x\"; scopes: \\ -> y\n"), "\"x\\\"; scopes: \\\\ -> y\\u{a}\"");
    }

    #[test]
    fn json_names_fields_states_and_times_as_protobuf_does() {
        let token = proto::Token {
            id: "id".to_owned(),
            user_id: "u".to_owned(),
            state: proto::TokenState::Active.into(),
            expire_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            ..proto::Token::default()
        };
        let mut line = Vec::new();

        write_json_line(&mut line, &TokenJson::from(&token)).unwrap();

        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"id\",\"organizationId\":\"\",\"userId\":\"u\",\"name\":\"\",\
             \"state\":\"TOKEN_STATE_ACTIVE\",\"createdBy\":\"\",\
             \"expireTime\":\"2023-11-14T22:13:20.500Z\"}\n"
        );
    }
}
