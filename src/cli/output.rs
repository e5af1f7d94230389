//! The output of the operator's commands: tables for people, JSON for scripts. JSON follows the
//! protobuf mapping (camelCase, RFC 3339 times, enum names, no unset fields). Names come from other
//! people, so terminal control characters are escaped.

use std::io::{self, Write};

use prost_types::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::CommandError;
use crate::domain::text::is_escaped;

/// Formats a time as RFC 3339 in UTC, with as many digits as needed.
pub(super) fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// Formats a time for people: RFC 3339 in UTC, to the second.
pub(super) fn to_the_second(time: Timestamp) -> String {
    let whole = Timestamp { nanos: 0, ..time };
    whole.to_string()
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
    fn columns_align_by_display_width_and_lines_have_no_trailing_spaces() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        // Width one, two, one with a combining mark of width zero, and an escaped character.
        let rows = vec![row(["é", "x"]), row(["漢字", "x"]), row(["e\u{301}", "x"]), row(["\u{7}", ""])];

        let text = table(&["A", "B"], rows);

        assert_eq!(text, "A      B\né      x\n漢字   x\ne\u{301}      x\n\\u{7}\n");
    }

    #[test]
    fn control_characters_are_escaped() {
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
}
