//! Parses the command line, and keeps secrets out of its errors: the parser repeats an unexpected word, and
//! so would write a misplaced secret into the log of the program that ran the command. Called by `main`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::process::exit;

use clap::Parser as _;

use super::CommandLine;

/// Replaces a word that may be a secret.
const NOT_REPEATED: &str = "(not repeated)";

/// The longest word that is repeated, and the longest run of letters and digits in one: a secret is
/// such a run.
const LONGEST: usize = 32;
const LONGEST_UNBROKEN: usize = 20;

/// Parses the process's command line; prints an error, or what `--help` asks for, and ends the process.
#[must_use]
pub fn parse() -> CommandLine {
    let words: Vec<_> = std::env::args_os().collect();
    match CommandLine::try_parse_from(&words) {
        Ok(line) => line,
        Err(error) => match told(&error, &words) {
            None => error.exit(),
            Some(text) => {
                let _ = io::stderr().lock().write_all(text.as_bytes());
                exit(error.exit_code());
            }
        },
    }
}

/// Returns the redacted message of an error, if the parser's own would repeat a possible secret.
fn told(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let said = error.render().to_string();
    let mut told = said.clone();
    let mut hidden: Vec<String> = words.iter().skip(1).flat_map(|word| hidden(word)).collect();
    // Longer ones first: a part may also be listed.
    hidden.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for word in hidden {
        told = told.replace(&word, NOT_REPEATED);
    }
    (told != said).then_some(told)
}

/// Returns the parts of a word that are not repeated: all of it, or a flag's value.
fn hidden(word: &OsStr) -> Vec<String> {
    let word = word.to_string_lossy().into_owned();
    let value = match word.split_once('=') {
        Some((_, value)) if word.starts_with('-') => Some(value.to_owned()),
        _ => None,
    };
    [Some(word), value].into_iter().flatten().filter(|word| !may_be_shown(word)).collect()
}

fn may_be_shown(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-.:+= ".contains(c));
    let unbroken = word.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max();
    plain && word.len() <= LONGEST && unbroken.is_none_or(|longest| longest <= LONGEST_UNBROKEN)
}

/// Refuses a secret in place of a token's id. Whether another text is an id is for the server to decide.
pub(super) fn parse_token_id(text: &str) -> Result<String, &'static str> {
    if text.contains('_') {
        return Err(
            "expected an id, the 22 characters behind the '_' of a secret: a secret is not given on a command line, \
                    where others can read it",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command, CommandFactory as _};
    use secrecy::ExposeSecret as _;
    use zeroize::Zeroizing;

    use super::*;
    use crate::secret::{Prefix, Secret, TokenId};

    /// Texts that people may paste by mistake, each with a part that must not be shown.
    fn secrets() -> [(String, &'static str); 4] {
        let secret = Secret::derived(TokenId::from_bytes([7; 16]), Zeroizing::new([7; 32]));
        let secret = secret.render(&Prefix::default()).expose_secret().to_owned();
        [
            (secret.clone(), "tokd_"),
            (secret[..40].to_owned(), "tokd_"),
            (secret[27..70].to_owned(), "secret"),
            ("postgres://u:canary@h/d".to_owned(), "canary"),
        ]
    }

    /// Visits the commands without subcommands.
    fn leaves(command: &Command, path: &[String], visit: &mut impl FnMut(&[String], &Command)) {
        let mut below = command.get_subcommands().peekable();
        if below.peek().is_none() {
            visit(path, command);
        }
        for command in below {
            leaves(command, &[path, &[command.get_name().to_owned()]].concat(), visit);
        }
    }

    /// Returns every form in which a text can be given to an argument of a command.
    fn positions(argument: &Arg, secret: &str) -> Vec<Vec<String>> {
        let long = argument.get_long().map(|name| format!("--{name}"));
        match long {
            Some(flag) => vec![vec![flag.clone(), secret.to_owned()], vec![format!("{flag}={secret}")]],
            None => vec![vec![secret.to_owned()]],
        }
    }

    #[test]
    fn no_secret_is_repeated_wherever_on_a_command_line_it_stands() {
        let mut lines: Vec<Vec<String>> = Vec::new();
        for (secret, _) in secrets() {
            lines.push(vec![secret.clone()]);
            lines.push(vec![format!("--{secret}")]);
            lines.push(vec![format!("-{secret}")]);
            lines.push(vec![format!("--secret={secret}")]);
            lines.push(vec!["help".to_owned(), secret.clone()]);
            leaves(&CommandLine::command(), &[], &mut |path, command| {
                let mut said =
                    vec![vec![secret.clone()], vec![secret.clone(), secret.clone(), secret.clone()]];
                said.push(vec![format!("--{secret}")]);
                said.push(vec![format!("--secret={secret}")]);
                said.push(vec!["--".to_owned(), secret.clone()]);
                said.extend(command.get_arguments().flat_map(|argument| positions(argument, &secret)));
                // At the end, and in place of the last word of the command's name.
                lines.extend(said.iter().map(|words| [path, words].concat()));
                lines.extend(said.iter().map(|words| [&path[..path.len() - 1], words].concat()));
            });
        }
        let mut refused = 0;
        for line in &lines {
            let words: Vec<OsString> =
                ["tokend"].into_iter().map(OsString::from).chain(line.iter().map(OsString::from)).collect();
            let Err(error) = CommandLine::try_parse_from(&words) else { continue };
            if !error.use_stderr() {
                // The help, which contains only our own text.
                continue;
            }
            refused += 1;
            let said = told(&error, &words).unwrap_or_else(|| error.render().to_string());
            for (secret, part) in secrets() {
                let part = if part == "secret" { &*secret } else { part };
                assert!(!said.contains(part), "{line:?}: {said}");
            }
        }
        assert!(refused > lines.len() / 2, "{refused} of {}", lines.len());
    }

    #[test]
    fn what_is_mistyped_is_repeated_as_far_as_it_can_be_no_secret() {
        let said = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let error = CommandLine::try_parse_from(&words).err().unwrap();
            told(&error, &words).unwrap_or_else(|| error.render().to_string())
        };
        assert!(said(&["tokend", "tokn"]).contains("'tokn'"));
        assert!(said(&["tokend", "token", "list", "--organisation", "x"]).contains("'--organisation'"));
        assert!(said(&["tokend", "token", "list", "--created-after", "2030-01-31"]).contains("'2030-01-31'"));
        let misplaced = said(&["tokend", "token", "get", &secrets()[0].0]);
        assert!(misplaced.contains("22 characters") && misplaced.contains(NOT_REPEATED), "{misplaced}");
    }
}
