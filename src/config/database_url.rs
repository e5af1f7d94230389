//! From a database URL, completed by libpq's variables, to connect options, as psql would read
//! them. Used by `sources` and `file`. Settings that would have no effect are refused, above all
//! security settings. The URL never reaches a log or an error.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;
use thiserror::Error;
use zeroize::Zeroizing;

use super::ConfigError;
use super::database_tls::{SYSTEM_VARIABLE, TlsFilesProblem, TlsParameters};
use super::database_uri::{Malformed, Parameters};
use super::environment::Environment;

const PORT: u16 = 5432;

/// The directories in which distributions put Postgres's socket.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/// Variables that restrict psql and that tokend's driver ignores.
const UNSUPPORTED_VARIABLES: [&str; 7] = [
    "PGSERVICE",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
];

/// Variables for which that is true only with this value.
const UNSUPPORTED_VALUES: [(&str, &str); 2] = [("PGCHANNELBINDING", "require"), ("PGGSSENCMODE", "require")];

/// Why a URL, with the variables that complete it, cannot be used.
#[derive(Debug, Error)]
pub enum DatabaseUrlProblem {
    /// It is not a libpq URI. An unencoded password is the usual cause.
    #[error(
        "{0}: write postgres://USER@HOST/DATABASE, and within a user name or password '/' as %2F, '@' as %40, \
         ':' as %3A, '?' as %3F and '%' as %25"
    )]
    Malformed(&'static str),
    /// Several hosts, of which one is the primary.
    #[error(
        "it names several hosts, but tokend must connect to one: it could not tell which of two servers that \
         both act as primary is right; name one address that leads to the primary, such as a HAProxy that \
         checks Patroni"
    )]
    SeveralHosts,
    /// A session that tokend could not use.
    #[error("tokend needs the primary: target_session_attrs can be read-write, primary or any")]
    SessionAttributes,
    /// A parameter or variable has an invalid value.
    #[error("{name} is invalid: expected {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// The valid values.
        expected: &'static str,
    },
    /// A TLS setting cannot be used, or would have no effect.
    #[error(transparent)]
    Tls(#[from] TlsFilesProblem),
    /// A libpq variable asks for something that tokend does not support.
    #[error("{0} is set, but tokend does not support it: unset it")]
    Variable(&'static str),
    /// The driver would use both.
    #[error("it has options, and PGOPTIONS is set as well: unset PGOPTIONS")]
    OptionsTwice,
    /// There is no user, and this account has no name.
    #[error("it names no user, PGUSER is not set and the name of this account is not known: add a user")]
    NoUser,
}

/// A database URL, which may contain a password and is therefore never shown.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    /// Returns whether the URL contains a password: before the `@`, or as the parameter `password`.
    pub(super) fn has_password(&self) -> bool {
        let url = self.0.expose_secret();
        if let Ok(parameters) = Parameters::parse(url) {
            return parameters.get("password").is_some();
        }
        // If the URL cannot be parsed, anything between a ':' and an '@' may be a password.
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains("pass")
    }

    /// Parses the URL; what it leaves out comes from libpq's `PG…` variables, as with psql.
    ///
    /// # Errors
    /// [`ConfigError::DatabaseUrl`] with the part that is wrong,
    /// [`ConfigError::DatabaseUrlParameter`] when it has an unknown parameter.
    pub(super) fn options(
        &self,
        origin: &'static str,
        environment: &Environment,
    ) -> Result<PgConnectOptions, ConfigError> {
        let problem = |problem| ConfigError::DatabaseUrl { origin, problem };
        let parameters = match Parameters::parse(self.0.expose_secret()) {
            Ok(parameters) => parameters,
            Err(Malformed::Parameter) => return Err(ConfigError::DatabaseUrlParameter { origin }),
            Err(Malformed::Scheme) => return Err(problem(malformed("it does not begin with postgres://"))),
            Err(Malformed::Escape) => {
                return Err(problem(malformed(
                    "a '%' in it is not followed by two hexadecimal digits of UTF-8 text",
                )));
            }
            Err(Malformed::Brackets) => {
                return Err(problem(malformed("its host in square brackets is not closed")));
            }
        };
        let resolved = Given { parameters: &parameters, environment, origin }.resolve()?;
        // Poolers refuse unknown parameters at the start of a connection; no float is ever read.
        let options = PgConnectOptions::from_str(&resolved)
            .map_err(|_| problem(malformed("the driver does not accept it")))?;
        Ok(options.extra_float_digits(None))
    }
}

fn malformed(what: &'static str) -> DatabaseUrlProblem {
    DatabaseUrlProblem::Malformed(what)
}

/// The connection settings as given; the URL wins over the environment.
struct Given<'a> {
    parameters: &'a Parameters,
    environment: &'a Environment,
    origin: &'static str,
}

impl Given<'_> {
    /// Returns the complete settings as a URL that leaves the driver nothing to look up.
    fn resolve(&self) -> Result<Zeroizing<String>, ConfigError> {
        let origin = self.origin;
        let problem = |problem| ConfigError::DatabaseUrl { origin, problem };
        for name in UNSUPPORTED_VARIABLES {
            if self.environment.text(name)?.is_some() {
                return Err(problem(DatabaseUrlProblem::Variable(name)));
            }
        }
        for (name, value) in UNSUPPORTED_VALUES {
            if self.environment.text(name)?.as_deref() == Some(value) {
                return Err(problem(DatabaseUrlProblem::Variable(name)));
            }
        }
        let value = |name, variable| self.value(name, variable);
        let endpoint = Endpoint {
            host: value("host", "PGHOST")?,
            address: value("hostaddr", "PGHOSTADDR")?,
            port: value("port", "PGPORT")?,
        };
        let tls = TlsParameters {
            mode: value("sslmode", "PGSSLMODE")?,
            root: value("sslrootcert", "PGSSLROOTCERT")?,
            certificate: value("sslcert", "PGSSLCERT")?,
            key: value("sslkey", "PGSSLKEY")?,
            home: self.environment.text("HOME")?,
            system: self.environment.text(SYSTEM_VARIABLE)?,
        };
        let session = Session {
            user: value("user", "PGUSER")?,
            database: value("dbname", "PGDATABASE")?,
            program: value("application_name", "PGAPPNAME")?,
            attributes: value("target_session_attrs", "PGTARGETSESSIONATTRS")?,
            preset_options: self.environment.text("PGOPTIONS")?.is_some(),
        };
        self.assemble(&endpoint, tls, session).map_err(problem)
    }

    fn assemble(
        &self,
        endpoint: &Endpoint,
        tls: TlsParameters,
        session: Session,
    ) -> Result<Zeroizing<String>, DatabaseUrlProblem> {
        let get = |name| self.parameters.get(name);
        if !matches!(session.attributes.as_deref(), None | Some("any" | "read-write" | "primary")) {
            return Err(DatabaseUrlProblem::SessionAttributes);
        }
        if session.preset_options && (get("options").is_some() || self.parameters.settings().next().is_some())
        {
            return Err(DatabaseUrlProblem::OptionsTwice);
        }
        let capacity = get("statement-cache-capacity");
        if capacity.is_some_and(|number| number.parse::<usize>().is_err()) {
            return Err(DatabaseUrlProblem::Value { name: "statement-cache-capacity", expected: "a number" });
        }
        let (host, port) = endpoint.resolve(&tls)?;
        let user = session.user.or_else(account_name).ok_or(DatabaseUrlProblem::NoUser)?;
        let program = session.program.as_deref().or(get("fallback_application_name"));
        let tls = if host.starts_with('/') { tls.on_a_socket()? } else { tls.resolve()? };

        let mut url = Zeroizing::new("postgres://localhost?".to_owned());
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                push(&mut url, name, value);
            }
        };
        add("host", Some(&host));
        add("port", Some(&port.to_string()));
        add("dbname", Some(session.database.as_deref().unwrap_or(&user)));
        add("user", Some(&user));
        add("password", get("password"));
        add("application_name", Some(program.unwrap_or("tokend")));
        add("options", get("options"));
        for (name, value) in self.parameters.settings() {
            add(name, Some(value));
        }
        add("statement-cache-capacity", capacity);
        add("sslmode", Some(tls.mode));
        add("sslrootcert", tls.root.as_deref());
        add("sslcert", tls.certificate.as_deref());
        add("sslkey", tls.key.as_deref());
        Ok(url)
    }

    fn value(&self, name: &str, variable: &'static str) -> Result<Option<String>, ConfigError> {
        match self.parameters.get(name) {
            Some(value) => Ok(Some(value.to_owned())),
            None => self.environment.text(variable),
        }
    }
}

/// The user, the database, and the session's settings.
struct Session {
    user: Option<String>,
    database: Option<String>,
    program: Option<String>,
    attributes: Option<String>,
    preset_options: bool,
}

/// The server's address as given.
struct Endpoint {
    host: Option<String>,
    address: Option<String>,
    port: Option<String>,
}

impl Endpoint {
    /// Returns the host or address to connect to, or a socket's directory, and the port.
    fn resolve(&self, tls: &TlsParameters) -> Result<(String, u16), DatabaseUrlProblem> {
        if [&self.host, &self.address, &self.port].into_iter().flatten().any(|text| text.contains(',')) {
            return Err(DatabaseUrlProblem::SeveralHosts);
        }
        let port = self.port.as_deref().map_or(Some(PORT), |text| text.parse().ok());
        let port =
            port.filter(|&port| port != 0).ok_or(malformed("its port is not a number from 1 to 65535"))?;
        let host = self.host.as_deref().filter(|host| !host.is_empty());
        if !host.is_none_or(is_host) {
            return Err(malformed("its host is not a name, an address or a socket's directory"));
        }
        let Some(address) = &self.address else {
            return Ok((host.map_or_else(|| default_host(port), ToOwned::to_owned), port));
        };
        if address.parse::<IpAddr>().is_err() {
            return Err(DatabaseUrlProblem::Value { name: "hostaddr", expected: "an IP address" });
        }
        // The driver takes one name only, and would look for the address in the certificate.
        if host.is_some_and(|host| host != address) && tls.checks_host() {
            return Err(DatabaseUrlProblem::Value {
                name: "hostaddr",
                expected: "no hostaddr together with a host whose certificate is checked by name",
            });
        }
        Ok((address.clone(), port))
    }
}

fn is_host(text: &str) -> bool {
    text.starts_with('/') || text.parse::<IpAddr>().is_ok() || ServerName::try_from(text).is_ok()
}

/// Returns the address of this machine's server: its socket, if there is one.
fn default_host(port: u16) -> String {
    let socket = format!(".s.PGSQL.{port}");
    let found = SOCKET_DIRECTORIES.into_iter().find(|directory| Path::new(directory).join(&socket).exists());
    found.unwrap_or("localhost").to_owned()
}

/// Asks `id`, which knows the accounts of every name service.
fn account_name() -> Option<String> {
    let output = Command::new("id").arg("-un").output().ok().filter(|output| output.status.success())?;
    let name = String::from_utf8(output.stdout).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Appends a parameter; everything but letters and digits is percent-encoded.
fn push(url: &mut String, name: &str, value: &str) {
    for (text, end) in [(name, '='), (value, '&')] {
        url.extend(utf8_percent_encode(text, NON_ALPHANUMERIC));
        url.push(end);
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url.into())
    }
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(Self(url.into()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl([redacted])")
    }
}
