//! The grammar of libpq's connection URIs: from a text to named parameters, percent-decoded. Used
//! by `database_url`. Knows the syntax and not the meaning; errors name parts and never repeat
//! them, since any part may belong to a password that was not percent-encoded.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::domain::percent;

/// The allowed parameters after the `?`, with the driver's other spellings.
const PARAMETERS: [(&str, &str); 20] = [
    ("application_name", "application_name"),
    ("dbname", "dbname"),
    ("fallback_application_name", "fallback_application_name"),
    ("host", "host"),
    ("hostaddr", "hostaddr"),
    ("options", "options"),
    ("password", "password"),
    ("port", "port"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("sslkey", "sslkey"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("statement-cache-capacity", "statement-cache-capacity"),
    ("target_session_attrs", "target_session_attrs"),
    ("user", "user"),
];

/// Why a text is not a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    /// It does not start with `postgres://` or `postgresql://`.
    #[error("it does not begin with postgres://")]
    Scheme,
    /// A `%` is not followed by two hexadecimal digits, or the decoded bytes are not text.
    #[error("a '%' in it is not followed by two hexadecimal digits of UTF-8 text")]
    Escape,
    /// A `[` without its `]`, or text between that and the port.
    #[error("its host in square brackets is not an IPv6 address")]
    Brackets,
    /// An unknown parameter.
    #[error("an unknown parameter")]
    Parameter,
}

/// The parameters of a URI: none twice, none empty.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Parses a URI as libpq does: the user ends at the first `@` before any `/`, and a later
    /// parameter wins.
    pub(super) fn parse(uri: &str) -> Result<Self, Malformed> {
        let rest = uri.strip_prefix("postgresql://").or_else(|| uri.strip_prefix("postgres://"));
        let mut rest = rest.ok_or(Malformed::Scheme)?;
        let mut parameters = Self::default();
        if let Some((user, after)) = rest.split_once('@').filter(|(user, _)| !user.contains('/')) {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            parameters.set("user", user)?;
            parameters.set("password", password)?;
            rest = after;
        }
        let (hosts, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        parameters.set_hosts(hosts)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        parameters.set("dbname", path.strip_prefix('/').unwrap_or(path))?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            parameters.set_pair(pair)?;
        }
        Ok(parameters)
    }

    /// Returns a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Iterates over the settings given as `options[NAME]`.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(name, _)| is_setting(name)).map(|(name, value)| (&**name, &**value))
    }

    fn set_hosts(&mut self, hosts: &str) -> Result<(), Malformed> {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, after) = match host.strip_prefix('[') {
                Some(host) => host.split_once(']').ok_or(Malformed::Brackets)?,
                None => host.split_at(host.find(':').unwrap_or(host.len())),
            };
            names.push(name);
            ports.push(match after.strip_prefix(':') {
                Some(port) => port,
                None if after.is_empty() => "",
                None => return Err(Malformed::Brackets),
            });
        }
        self.set("host", &names.join(","))?;
        self.set("port", &ports.join(","))
    }

    fn set_pair(&mut self, pair: &str) -> Result<(), Malformed> {
        let (name, value) = pair.split_once('=').ok_or(Malformed::Parameter)?;
        let name = decoded(name)?;
        if name == "ssl" && value == "true" {
            // JDBC's spelling.
            return self.set("sslmode", "require");
        }
        if is_setting(&name) {
            return self.set(&name, value);
        }
        let known = PARAMETERS.iter().find(|(spelling, _)| *spelling == name);
        self.set(known.ok_or(Malformed::Parameter)?.1, value)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Malformed> {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), decoded(value)?);
        }
        Ok(())
    }
}

fn is_setting(name: &str) -> bool {
    name.strip_prefix("options[").is_some_and(|name| name.len() > 1 && name.ends_with(']'))
}

/// Decodes percent-encoding. Postgres text cannot contain a zero byte.
fn decoded(text: &str) -> Result<String, Malformed> {
    let decoded = percent::decoded(text.as_bytes()).filter(|decoded| !decoded.contains(&0));
    decoded.and_then(|decoded| String::from_utf8(decoded).ok()).ok_or(Malformed::Escape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(uri: &str) -> Vec<(String, String)> {
        Parameters::parse(uri).map(|parameters| parameters.0.into_iter().collect()).unwrap_or_default()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_parts_of_a_uri_are_distinguished() {
        assert_eq!(
            parsed("postgres://u:p?%40@[::1]:5/d%2fe?sslmode=disable&user=v&port="),
            [
                pair("dbname", "d/e"),
                pair("host", "::1"),
                pair("password", "p?@"),
                pair("port", "5"),
                pair("sslmode", "disable"),
                pair("user", "v")
            ]
        );
        assert_eq!(parsed("postgresql://a,b:2"), [pair("host", "a,b"), pair("port", ",2")]);
        assert_eq!(parsed("postgres://u@/?ssl=true"), [pair("sslmode", "require"), pair("user", "u")]);
    }

    #[test]
    fn an_invalid_uri_is_refused() {
        let problem = |uri| Parameters::parse(uri).err();

        assert_eq!(problem("mysql://h"), Some(Malformed::Scheme));
        assert_eq!(problem("postgres://h/%4"), Some(Malformed::Escape));
        assert_eq!(problem("postgres://h/%00"), Some(Malformed::Escape));
        assert_eq!(problem("postgres://h/%+f"), Some(Malformed::Escape));
        assert_eq!(problem("postgres://[::1"), Some(Malformed::Brackets));
        assert_eq!(problem("postgres://[::1]5"), Some(Malformed::Brackets));
        assert_eq!(problem("postgres://h?sslmode"), Some(Malformed::Parameter));
    }

    proptest! {
        #[test]
        fn parsing_a_uri_never_panics(text in "(postgres://)?.{0,40}") {
            let _ = Parameters::parse(&text);
        }
    }
}
