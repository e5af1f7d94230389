//! The caller's own secret: read from the environment or a private file, and checked before it is sent.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::CommandError;
use super::client_error::ClientError;
use crate::config::{self, CallerSecret, Environment};
use crate::secret::private_file::is_exposed;
use crate::secret::{FormatError, Prefix, Secret};

/// Reads the caller's secret and returns it with its origin: `TOKEND_SECRET` wins over `TOKEND_SECRET_FILE`. `None`:
/// neither is set.
pub(super) fn caller_secret(
    environment: &Environment,
) -> Result<Option<(SecretString, &'static str)>, CommandError> {
    let (secret, origin) = match config::caller_secret(environment)? {
        Some(CallerSecret::Text(secret)) => (secret, "TOKEND_SECRET"),
        Some(CallerSecret::File(path)) => {
            (first_line(&secret_file(path)?), "the file that TOKEND_SECRET_FILE names")
        }
        None => return Ok(None),
    };
    match malformed(secret.expose_secret()) {
        None => Ok(Some((secret, origin))),
        Some(problem) => Err(ClientError::NotASecret { origin, problem }.into()),
    }
}

/// Returns why a text cannot be a secret of any installation; the prefix is known only to the servers.
fn malformed(text: &str) -> Option<&'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Some("it must be one word of letters, digits and _");
    }
    let Some((prefix, _)) = text.split_once('_') else {
        return Some("it does not begin with a prefix, as in tokd_");
    };
    let Ok(prefix) = Prefix::parse(prefix) else {
        return Some("it does not begin with a prefix, as in tokd_");
    };
    Secret::parse(text, &prefix).err().map(|error| match error {
        FormatError::Length => "it is too short or too long",
        _ => "its checksum does not match, so at least one character is wrong",
    })
}

/// Reads the file with the caller's secret, which nobody else may be able to read.
fn secret_file(path: PathBuf) -> Result<Zeroizing<String>, ClientError> {
    let read = fs::File::open(&path).and_then(|mut file| {
        // Checked on the open file: the path may point elsewhere a moment later.
        let exposed = is_exposed(&file.metadata()?);
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text)?;
        Ok((exposed, text))
    });
    match read {
        Ok((false, text)) => Ok(text),
        Ok((true, _)) => Err(ClientError::SecretFileExposed { path }),
        Err(source) => Err(ClientError::SecretFile { path, source }),
    }
}

/// Removes one line ending, as editors and `echo` leave one, and nothing else.
pub(super) fn first_line(text: &str) -> SecretString {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Account;
    use crate::secret::TokenId;

    /// A secret of an installation with another prefix.
    fn secret() -> String {
        let secret = Secret::derived(TokenId::from_bytes([7; 16]), Zeroizing::new([7; 32]));
        secret.render(&Prefix::parse("acme").unwrap()).expose_secret().to_owned()
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of_pairs(pairs, Account::Ordinary)
    }

    #[test]
    fn the_secret_itself_wins_over_its_file() {
        let value =
            caller_secret(&environment(&[("TOKEND_SECRET", &secret()), ("TOKEND_SECRET_FILE", "/nowhere")]));

        let (value, origin) = value.unwrap().unwrap();
        assert_eq!((value.expose_secret(), origin), (&*secret(), "TOKEND_SECRET"));
    }

    #[test]
    fn one_line_ending_of_a_secret_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, secret() + "\n").unwrap();
        let read = || caller_secret(&environment(&[("TOKEND_SECRET_FILE", path.to_str().unwrap())]));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read();
        assert!(matches!(refused, Err(CommandError::Client(ClientError::SecretFileExposed { .. }))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read().unwrap().unwrap().0.expose_secret(), secret());
    }

    #[test]
    fn a_text_that_cannot_be_a_secret_is_refused_and_not_repeated() {
        let good = secret();
        let wrong = format!("{}canary{}", &good[..20], &good[26..]);
        for (text, expected) in [
            ("canary text", "one word"),
            ("canary", "prefix"),
            ("CANARY_canary", "prefix"),
            (&good[..70], "too short"),
            (&format!("{good}0"), "too long"),
            (&wrong, "checksum"),
        ] {
            let error = caller_secret(&environment(&[("TOKEND_SECRET", text)])).unwrap_err();

            assert!(
                error.to_string().contains(expected) && error.to_string().contains("TOKEND_SECRET"),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}
