//! The only access to environment variables in the binary. Commands create it once from the process
//! and pass it on; tests create it from pairs, so that no test changes the process's environment.
//! Unknown `TOKEND_…` variables are ignored: other programs' settings may share the prefix.

use std::collections::HashMap;
use std::ffi::OsString;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::ConfigError;

/// The account that the process runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// An ordinary user, with a home.
    Ordinary,
    /// The superuser, whose data is below `/var/lib`.
    Root,
}

type Lookup = Box<dyn Fn(&str) -> Option<OsString>>;

/// The environment of the process: variables and account.
pub struct Environment {
    lookup: Lookup,
    account: Account,
}

impl Environment {
    /// Reads the variables and the account of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let account = if rustix::process::geteuid().is_root() { Account::Root } else { Account::Ordinary };
        Self { lookup: Box::new(|name| std::env::var_os(name)), account }
    }

    /// Creates an environment with exactly these variables.
    #[must_use]
    pub fn of_pairs(pairs: &[(&str, &str)], account: Account) -> Self {
        let variables: HashMap<String, OsString> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Self { lookup: Box::new(move |name| variables.get(name).cloned()), account }
    }

    /// Returns the account that the process runs under.
    #[must_use]
    pub fn account(&self) -> Account {
        self.account
    }

    /// Returns a variable's text; an empty variable counts as absent.
    ///
    /// # Errors
    /// [`ConfigError::VariableNotText`] when it is not UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match (self.lookup)(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(ConfigError::VariableNotText(name)),
            },
        }
    }

    /// Returns a variable parsed as the value of its setting; an empty one counts as absent.
    ///
    /// # Errors
    /// [`ConfigError::VariableNotText`], and [`ConfigError::Variable`] when it does not parse.
    pub fn value<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        // It may be a secret.
        let Some(text) = self.text(name)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(ConfigError::Variable { name, source: Box::new(source) }),
        }
    }
}
