//! `tokend secret check`: finds secrets in a text and prints the ids of their tokens. Asks no server,
//! so it works where no tokend is reachable; whether a token is valid is for `tokend token verify`.

use std::io::{self, IsTerminal as _, Read};
use std::process::ExitCode;

use clap::Subcommand;
use zeroize::Zeroizing;

use super::CommandError;
use super::client::ClientError;
use super::output::{print, remark};
use super::token::NOT_VALID;
use crate::config::{Environment, PrefixFlags};
use crate::secret::{Prefix, Secret, TokenId};

/// How many bytes of a text are read at once.
const CHUNK: usize = 64 * 1024;

/// `tokend secret …`
#[derive(Subcommand)]
pub(super) enum SecretCommand {
    /// Find secrets in the text on standard input, and print the ids of their tokens
    ///
    /// Prints only the ids, one on each line, in the order of the text. Exit status 0: a secret was found, 3:
    /// none was found, and standard error says why. Asks no server: the checksum shows whether a text is a
    /// typing error or a false hit of a scanner.
    Check {
        #[command(flatten)]
        prefix: PrefixFlags,
    },
}

pub(super) fn run(command: SecretCommand, environment: &Environment) -> Result<ExitCode, CommandError> {
    let SecretCommand::Check { prefix } = command;
    let prefix = prefix.resolve(environment)?;
    let input = io::stdin();
    if input.is_terminal() {
        remark("reading text from standard input; end with Enter and Ctrl-D\n");
    }
    let mut any = false;
    let refusal = scan(input.lock(), &prefix, |id| {
        any = true;
        print(&format!("{id}\n"))
    })?;
    if any {
        return Ok(ExitCode::SUCCESS);
    }
    remark(&format!("no secret: {refusal}\n"));
    Ok(ExitCode::from(NOT_VALID))
}

/// Calls `found` with the id of each secret in a text; returns why there is none, if there is none.
/// A secret is a whole word, as in the scanners' rules. Keeps only a part of the text in memory.
fn scan(
    mut input: impl Read,
    prefix: &Prefix,
    mut found: impl FnMut(TokenId) -> Result<(), CommandError>,
) -> Result<String, CommandError> {
    let span = prefix.as_str().len() + 1 + Secret::BODY;
    // Starts after a word boundary, with capacity for everything, so that growing leaves no copy in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * (CHUNK + span)));
    text.push(b' ');
    let mut refusal = "there is none in the text".to_owned();
    let mut first = true;
    loop {
        let space = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        let read = input.by_ref().take(space).read_to_end(&mut text).map_err(ClientError::Input)?;
        let last = read < CHUNK;
        if last {
            if first && !text.trim_ascii().iter().any(u8::is_ascii_whitespace) {
                refusal = reason(text.trim_ascii(), prefix);
            }
            text.push(b' ');
        }
        first = false;
        let mut at = 1;
        while at + span < text.len() {
            let (before, word, after) = (text[at - 1], &text[at..at + span], text[at + span]);
            if !is_word_byte(before)
                && !is_word_byte(after)
                && let Ok(word) = std::str::from_utf8(word)
                && let Ok(secret) = Secret::parse(word, prefix)
            {
                found(secret.id())?;
            }
            at += 1;
        }
        if last {
            return Ok(refusal);
        }
        text.drain(..at - 1);
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns why a word is not a secret.
fn reason(word: &[u8], prefix: &Prefix) -> String {
    let parsed = std::str::from_utf8(word).ok().map(|word| Secret::parse(word, prefix));
    parsed
        .and_then(Result::err)
        .map_or_else(|| "the text is not a single word".to_owned(), |error| error.to_string())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn secret(byte: u8) -> (String, TokenId) {
        let id = TokenId::from_bytes([byte; 16]);
        let secret = Secret::derived(id, Zeroizing::new([byte; 32]));
        (secret.render(&Prefix::default()).expose_secret().to_owned(), id)
    }

    fn ids(text: &[u8]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        scan(text, &Prefix::default(), |id| {
            ids.push(id);
            Ok(())
        })
        .unwrap();
        ids
    }

    #[test]
    fn only_secrets_are_found_within_lines() {
        let ((one, first), (two, second)) = (secret(1), secret(2));
        let mut wrong = one.clone();
        wrong.replace_range(30..31, if &one[30..31] == "0" { "1" } else { "0" });
        for (text, expected) in [
            (one.clone(), vec![first]),
            (format!("{one}\n"), vec![first]),
            (format!("  token: \"{one}\", other={two};\n"), vec![first, second]),
            (format!("https://host/?t={two}&x\r\nAuthorization: Bearer {one}\u{2026}"), vec![second, first]),
            (format!("x{one} {one}x {one}_ _{one}"), vec![]),
            (wrong, vec![]),
            (one[..75].to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            assert_eq!(ids(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(ids(&[b"\xff\xfe ", one.as_bytes(), b"\x00"].concat()), [first], "in what is no text");
    }

    #[test]
    fn secrets_are_found_across_chunk_borders() {
        let (one, id) = secret(1);
        for offset in (CHUNK - 80..CHUNK + 80).chain(2 * CHUNK - 80..2 * CHUNK + 80) {
            let text = [vec![b'-'; offset], one.clone().into_bytes(), vec![b'\n'; 10]].concat();
            assert_eq!(ids(&text), [id], "{offset}");
        }
    }
}
