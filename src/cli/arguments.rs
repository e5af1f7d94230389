//! Parses the command line, and repeats no value in its errors: the parser repeats an unexpected word, and so
//! would write a misplaced secret into the log of the program that ran the command. Called by `main`.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use super::CommandLine;

/// Replaces a value.
const NOT_REPEATED: &str = "(not repeated)";

/// The longest name of a flag that is repeated.
const LONGEST: usize = 32;

/// Parses the process's command line; prints an error, or what `--help` asks for, and ends the process.
#[must_use]
pub fn parse() -> CommandLine {
    read(std::env::args_os()).unwrap_or_else(|error| without_values(error).exit())
}

fn read(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<CommandLine, clap::Error> {
    let mut command = CommandLine::command();
    let matches = command.try_get_matches_from_mut(words)?;
    demand_values(&command, &matches)?;
    CommandLine::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Refuses empty values, such as those of shell variables that are not set: an empty filter would select
/// everything, an empty organization another one than was meant.
fn demand_values(command: &Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
        let name = argument.get_id().as_str();
        let given = matches.value_source(name) == Some(ValueSource::CommandLine);
        if given && matches.get_raw(name).is_some_and(|mut values| values.any(OsStr::is_empty)) {
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            error.insert(ContextKind::InvalidArg, ContextValue::String(argument.to_string()));
            error.insert(ContextKind::InvalidValue, ContextValue::String(String::new()));
            return Err(error);
        }
    }
    let inner = matches.subcommand();
    let inner = inner.and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)));
    inner.map_or(Ok(()), |(command, matches)| demand_values(command, matches))
}

/// Removes the values from an error; what was expected, and what is similar, stays.
fn without_values(mut error: clap::Error) -> clap::Error {
    let given = match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::TooManyValues => {
            ContextKind::InvalidValue
        }
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        // These contain only our own words.
        _ => return error,
    };
    let shown = match error.get(given) {
        Some(ContextValue::String(word)) if given == ContextKind::InvalidArg => is_flag(word),
        Some(ContextValue::String(word)) => word.is_empty(),
        _ => false,
    };
    if !shown {
        error.insert(given, ContextValue::String(NOT_REPEATED.to_owned()));
        // Tips that contain the word.
        error.remove(ContextKind::Suggested);
    }
    error
}

/// Returns whether a word may be the mistyped name of a flag.
fn is_flag(word: &str) -> bool {
    let name =
        |name: &str| name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    word.strip_prefix("--").is_some_and(name) || word.starts_with('-') && word.len() == 2
}

/// Refuses a secret in place of a token's id. Whether another text is an id is for the server to decide.
pub(super) fn parse_token_id(text: &str) -> Result<String, &'static str> {
    if text.contains('_') {
        return Err(
            "expected a token's id, the 22 characters after the '_' of its secret: do not put a secret on a \
             command line, where others can read it",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use secrecy::ExposeSecret as _;
    use zeroize::Zeroizing;

    use super::*;
    use crate::secret::{Prefix, Secret, TokenId};

    /// Texts that people may type or paste by mistake, each with a part that must not be shown.
    fn secrets() -> [(String, &'static str); 7] {
        let secret = Secret::derived(TokenId::from_bytes([7; 16]), Zeroizing::new([7; 32]));
        let secret = secret.render(&Prefix::default()).expose_secret().to_owned();
        [
            (secret.clone(), "tokd_"),
            (secret[..40].to_owned(), "tokd_"),
            (secret[27..70].to_owned(), "secret"),
            ("postgres://u:canary@h/d".to_owned(), "canary"),
            ("hunter2".to_owned(), "hunter2"),
            ("correcthorsebattery".to_owned(), "correcthorse"),
            ("two words-or=three".to_owned(), "words"),
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
    fn no_secret_on_a_command_line_is_repeated_in_an_error() {
        let mut lines: Vec<Vec<String>> = Vec::new();
        for (secret, _) in secrets() {
            lines.push(vec![secret.clone()]);
            if !is_flag(&format!("--{secret}")) {
                lines.push(vec![format!("--{secret}")]);
            }
            lines.push(vec![format!("-{secret}")]);
            lines.push(vec![format!("--secret={secret}")]);
            lines.push(vec!["help".to_owned(), secret.clone()]);
            leaves(&CommandLine::command(), &[], &mut |path, command| {
                let mut variants =
                    vec![vec![secret.clone()], vec![secret.clone(), secret.clone(), secret.clone()]];
                if !is_flag(&format!("--{secret}")) {
                    variants.push(vec![format!("--{secret}")]);
                }
                variants.push(vec![format!("--secret={secret}")]);
                variants.push(vec!["--".to_owned(), secret.clone()]);
                variants.extend(command.get_arguments().flat_map(|argument| positions(argument, &secret)));
                // At the end, and in place of the last word of the command's name.
                lines.extend(variants.iter().map(|words| [path, words].concat()));
                lines.extend(variants.iter().map(|words| [&path[..path.len() - 1], words].concat()));
            });
        }
        let mut refused = 0;
        for line in &lines {
            let words = ["tokend"].into_iter().chain(line.iter().map(String::as_str));
            let Err(error) = read(words) else { continue };
            if !error.use_stderr() {
                // The help, which contains only our own text.
                continue;
            }
            refused += 1;
            let message = without_values(error).render().to_string();
            for (secret, part) in secrets() {
                let part = if part == "secret" { &*secret } else { part };
                assert!(!message.contains(part), "{line:?}: {message}");
            }
        }
        assert!(refused > lines.len() / 2, "{refused} of {}", lines.len());
    }

    #[test]
    fn a_mistyped_argument_is_explained_by_what_was_expected() {
        let refusal = |words: &[&str]| {
            let error = read(words).err().unwrap();
            without_values(error).render().to_string()
        };
        for (line, expected) in [
            (&["tokend", "tokn"][..], "a similar subcommand exists: 'token'"),
            (&["tokend", "token", "list", "--organisation", "x"], "unexpected argument '--organisation'"),
            (&["tokend", "token", "list", "--organisation", "x"], "exists: '--organization'"),
            (&["tokend", "token", "list", "-x"], "unexpected argument '-x'"),
            (
                &["tokend", "token", "list", "--created-after", "2030-01-31"],
                "for '--created-after <TIME>': expected",
            ),
            (&["tokend", "token", "list", "--state", "activ"], "a similar value exists: 'active'"),
            (&["tokend", "token", "list", "--state", ""], "a value is required for '--state"),
            (&["tokend", "token", "get", &secrets()[0].0], "22 characters"),
            (&["tokend", "token", "get", "a", "hunter2"], "unexpected argument '(not repeated)'"),
        ] {
            let message = refusal(line);
            assert!(message.contains(expected), "{line:?}: {message}");
        }
    }

    #[test]
    fn an_empty_value_is_refused_by_every_flag() {
        let mut tried = 0;
        leaves(&CommandLine::command(), &[], &mut |path, command| {
            for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
                for given in positions(argument, "") {
                    let words = ["tokend"].into_iter().chain(path.iter().chain(&given).map(String::as_str));
                    let words: Vec<&str> = words.collect();
                    let error = read(&words).err().unwrap_or_else(|| panic!("{words:?} is accepted"));
                    // Or it lacks something else.
                    let missing = error.kind() == ErrorKind::MissingRequiredArgument;
                    let message = without_values(error).render().to_string();
                    assert!(missing || message.contains("value"), "{words:?}: {message}");
                    tried += 1;
                }
            }
        });
        assert!(tried > 200, "{tried}");
        for line in [
            "token list --organization",
            "audit list --by",
            "user revoke ada --organization",
            "watch --after",
        ] {
            let words = ["tokend"].into_iter().chain(line.split(' ')).chain([""]);
            let message = without_values(read(words).err().unwrap()).render().to_string();
            assert!(message.contains("a value is required for '--"), "{line}: {message}");
        }
    }
}
