//! A database URL as it was written, before it becomes connect options.
//!
//! `resolve` and `file` use it to find a password where none may stand. The URL itself never
//! reaches a log or an error.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

use super::ConfigError;

/// What may stand behind the `?`, with the driver's other spellings.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// A database URL that may hold a password, and therefore never shows itself.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    /// Tells whether the URL holds a password: before the `@`, or as the parameter `password`.
    pub(super) fn has_password(&self) -> bool {
        let url = self.0.expose_secret();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        user.contains(':') || parameters(query).any(|name| name == b"password")
    }

    /// Tells whether the URL holds a parameter that nothing here knows. The driver would only log it, with its
    /// value; a mistyped `sslmode` would be no `sslmode`.
    fn has_unknown_parameter(&self) -> bool {
        let query = self.0.expose_secret().split_once('?').map_or("", |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        parameters(query).any(|name| {
            !PARAMETERS.iter().any(|known| known.as_bytes() == name) && !name.starts_with(b"options[")
        })
    }

    /// Parses the URL; what it leaves out comes from libpq's `PG…` variables, as with psql.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] when it is no `postgres://` or `postgresql://` URL,
    /// [`ConfigError::DatabaseUrlParameter`] when it holds a parameter that nothing knows.
    pub(super) fn options(&self, origin: &'static str) -> Result<PgConnectOptions, ConfigError> {
        let url = self.0.expose_secret();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(ConfigError::DatabaseUrl { origin, source: None });
        }
        if self.has_unknown_parameter() {
            return Err(ConfigError::DatabaseUrlParameter { origin });
        }
        match PgConnectOptions::from_str(url) {
            // Poolers refuse what they do not know at the start of a connection; no float is ever read.
            Ok(options) => Ok(options.application_name("tokend").extra_float_digits(None)),
            Err(source) => Err(ConfigError::DatabaseUrl { origin, source: Some(Box::new(source)) }),
        }
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url.into())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl([redacted])")
    }
}

/// Returns the parameters' names.
fn parameters(query: &str) -> impl Iterator<Item = Vec<u8>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| percent_decoded(pair.split('=').next().unwrap_or_default()))
}

/// Undoes `%41` in a parameter's name, so that a password cannot hide behind it.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    decoded
}
