//! The commands that do what a page does: by `tokend`, and by grpcurl. Neither has a secret: both take the caller's from
//! the environment, and one that is asked about from standard input. Pure functions, used by the other pages.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::domain::OwnerKind;
use crate::domain::text::is_deceptive;

/// The lines that do the same as a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api::console) struct Lines {
    pub(in crate::api::console) tokend: String,
    pub(in crate::api::console) grpcurl: String,
}

impl Lines {
    /// Returns these lines, and those of a second call below them.
    pub(in crate::api::console) fn then(self, next: &Self) -> Self {
        let joined = |one: &str, other: &str| format!("{one}\n{other}");
        Self { tokend: joined(&self.tokend, &next.tokend), grpcurl: joined(&self.grpcurl, &next.grpcurl) }
    }
}

/// A call that can be written in both ways.
#[derive(Debug, Clone)]
pub(in crate::api::console) struct Call {
    /// The words after `tokend`.
    words: Vec<String>,
    /// A word that is no flag, which comes last.
    operand: Option<String>,
    method: &'static str,
    message: Map<String, Value>,
}

impl Call {
    /// Begins a call: the subcommand, and the method of the service.
    pub(in crate::api::console) fn new(subcommand: &[&str], method: &'static str) -> Self {
        let words = subcommand.iter().map(|word| (*word).to_owned()).collect();
        Self { words, operand: None, method, message: Map::new() }
    }

    /// Adds what the command is about, and its field.
    pub(in crate::api::console) fn about(mut self, field: &str, value: &str) -> Self {
        self.operand = Some(value.to_owned());
        self.set(field, value.into())
    }

    /// Adds a flag with a text and its field, unless the text is empty.
    pub(in crate::api::console) fn text(self, flag: &str, field: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.flag(flag, Some(value)).set(field, value.into()) }
    }

    /// Adds a flag with a kind of owner and its field, unless the text names none.
    pub(in crate::api::console) fn owner_kind(self, flag: &str, text: &str) -> Self {
        let Some(kind) = OwnerKind::from_word(text) else { return self };
        let name = format!("OWNER_KIND_{}", kind.word().to_uppercase());
        self.flag(flag, Some(kind.word())).set("ownerKind", name.into())
    }

    /// Adds a flag for each text, and the field that has them all.
    pub(in crate::api::console) fn texts(self, flag: &str, field: &str, values: &[String]) -> Self {
        let line = values.iter().fold(self, |line, value| line.flag(flag, Some(value)));
        if values.is_empty() { line } else { line.set(field, json!(values)) }
    }

    /// Adds a flag for each label, and their field.
    pub(in crate::api::console) fn labels(self, values: &[(String, String)]) -> Self {
        if values.is_empty() {
            return self;
        }
        let pairs = values.iter().map(|(key, value)| format!("{key}={value}"));
        let line = pairs.fold(self, |line, pair| line.flag("label", Some(&pair)));
        let map: Map<_, _> = values.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        line.set("labels", map.into())
    }

    /// Adds a flag.
    pub(in crate::api::console) fn flag(mut self, flag: &str, value: Option<&str>) -> Self {
        self.words.push(match value {
            // Otherwise it would be taken for a flag.
            Some(value) if value.starts_with('-') => format!("--{flag}={}", quoted(value)),
            Some(value) => format!("--{flag} {}", quoted(value)),
            None => format!("--{flag}"),
        });
        self
    }

    /// Sets a field of the message.
    pub(in crate::api::console) fn set(mut self, field: &str, value: Value) -> Self {
        self.message.insert(field.to_owned(), value);
        self
    }

    /// Returns the lines.
    pub(in crate::api::console) fn lines(&self) -> Lines {
        let mut tokend = format!("tokend {}", self.words.join(" "));
        if let Some(operand) = &self.operand {
            let dashes = if operand.starts_with('-') { "-- " } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(tokend, " {dashes}{}", quoted(operand));
        }
        let grpcurl = format!("{GRPCURL} -d {} {ADDRESS}/{}", quoted(&self.message_text()), self.method);
        Lines { tokend, grpcurl }
    }

    /// Returns the lines that do it for each of these ids, which the field `tokenId` is for.
    pub(in crate::api::console) fn lines_for(&self, ids: &[String]) -> Lines {
        let each = format!("for id in {}; do", ids.join(" "));
        Lines {
            tokend: format!("{each} tokend {} \"$id\"; done", self.words.join(" ")),
            grpcurl: format!("{each} {}; done", self.grpcurl_with("tokenId", "id")),
        }
    }

    /// Returns the lines that ask for a secret, which the field `secret` is for, and put it on no command line.
    pub(in crate::api::console) fn lines_for_secret(&self) -> Lines {
        const READ: &str = "read -rs TOKEN;";
        Lines {
            tokend: format!("{READ} printf '%s\\n' \"$TOKEN\" | tokend {}", self.words.join(" ")),
            grpcurl: format!("{READ} {}", self.grpcurl_with("secret", "TOKEN")),
        }
    }

    /// Returns the call by grpcurl with the value of a variable of the shell in a field.
    fn grpcurl_with(&self, field: &str, variable: &str) -> String {
        let message = self.clone().set(field, "%s".into());
        // printf reads its format: what is not the value is written so that it stays as it is.
        let format = message.message_text().replace('\\', "\\\\").replace('%', "%%");
        let format = format.replacen(&format!("\"{field}\":\"%%s\""), &format!("\"{field}\":\"%s\""), 1);
        format!("printf {} \"${variable}\" | {GRPCURL} -d @ {ADDRESS}/{}", quoted(&format), self.method)
    }

    /// Returns the message in ASCII, so that nothing in it hides or turns text.
    fn message_text(&self) -> String {
        let mut text = String::new();
        for character in Value::from(self.message.clone()).to_string().chars() {
            if is_deceptive(character) {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            } else {
                text.push(character);
            }
        }
        text
    }
}

const GRPCURL: &str = "grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${TOKEND_SECRET}'";
const ADDRESS: &str = "localhost:50051 tokend.v1.TokenService";

/// Returns a text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=@%+,-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    if !text.chars().any(|character| character.is_control() || is_deceptive(character)) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    // As bash and zsh read it: bytes by their numbers, whatever the language of the shell.
    let mut word = String::from("$'");
    for character in text.chars() {
        match character {
            '\'' | '\\' => _ = write!(word, "\\{character}"),
            character if character.is_control() || is_deceptive(character) => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(word, "\\x{byte:02x}");
                }
            }
            character => word.push(character),
        }
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_word_of_a_shell() {
        for (text, word) in [
            ("ci", "ci"),
            ("reports:*", "'reports:*'"),
            ("", "''"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a\u{202e}b'\\", r"$'a\xe2\x80\xaeb\'\\'"),
            ("a\nb", r"$'a\x0ab'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }

    #[test]
    fn a_value_that_begins_with_a_hyphen_is_no_flag() {
        let call = Call::new(&["user", "revoke"], "RevokeUserTokens").text("reason", "reason", "-x");
        let lines = call.about("userId", "--all").lines();
        assert_eq!(lines.tokend, "tokend user revoke --reason=-x -- --all");
        assert!(lines.grpcurl.contains(r#"'{"reason":"-x","userId":"--all"}'"#), "{}", lines.grpcurl);
    }

    #[test]
    fn a_reason_stays_as_it_is_in_the_lines_for_several_tokens() {
        let call = Call::new(&["token", "revoke"], "RevokeToken").text("reason", "reason", "100 % \"lost\"");
        let lines = call.lines_for(&["A".to_owned(), "B".to_owned()]);
        assert_eq!(
            lines.tokend,
            "for id in A B; do tokend token revoke --reason '100 % \"lost\"' \"$id\"; done"
        );
        let printed = r#"printf '{"reason":"100 %% \\"lost\\"","tokenId":"%s"}' "$id""#;
        assert!(lines.grpcurl.contains(printed), "{}", lines.grpcurl);
    }
    #[test]
    fn a_secret_that_is_asked_about_is_on_no_command_line() {
        let call =
            Call::new(&["token", "verify"], "Verify").texts("scope", "requiredScopes", &["a:*".to_owned()]);
        let lines = call.lines_for_secret();
        let read = "read -rs TOKEN; printf";
        assert_eq!(lines.tokend, format!("{read} '%s\\n' \"$TOKEN\" | tokend token verify --scope 'a:*'"));
        let message = r#"'{"requiredScopes":["a:*"],"secret":"%s"}'"#;
        assert!(
            lines.grpcurl.starts_with(&format!("{read} {message} \"$TOKEN\" | grpcurl")),
            "{}",
            lines.grpcurl
        );
    }
}
