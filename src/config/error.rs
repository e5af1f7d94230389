//! Every error of a configuration, worded so that the operator can correct it. Created by the rest
//! of `config`, printed by `main`. A message names the flag, variable, file or line; it never
//! repeats a value that may contain a password or a key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fmt, io};

use thiserror::Error;

use super::DatabaseUrlProblem;
use crate::domain::FieldError;
use crate::secret::{DurableError, KeyringError, PrefixError};

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// An environment variable has an invalid value.
    #[error("the environment variable {name} holds an invalid value")]
    Variable {
        /// The variable's name.
        name: &'static str,
        /// What its parser says, without the value.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    VariableNotText(&'static str),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration file is not TOML, or holds an unknown key or a wrong value.
    #[error("{}:{line}: {message}", path.display())]
    FileInvalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, naming an unknown key.
        message: String,
    },
    /// The configuration file holds a database password that others could read.
    #[error(
        "{} holds a database password and can be read by others: run `chmod 600` on it",
        .0.display()
    )]
    FileExposed(PathBuf),
    /// A flag contains a password, where every process of the machine can read it.
    #[error("{name} must not hold a password, since command lines are public: put the URL into {variable}")]
    PasswordInFlag {
        /// The flag.
        name: &'static str,
        /// The variable to use for the URL instead.
        variable: &'static str,
    },
    /// The database URL cannot be used.
    #[error("the database URL from {origin} cannot be used: {problem}")]
    DatabaseUrl {
        /// The flag, variable or file key that it came from.
        origin: &'static str,
        /// The part that is wrong, without its value.
        problem: DatabaseUrlProblem,
    },
    /// The database URL has a parameter that would have no effect. Not repeated: it may be part of
    /// a password that was not percent-encoded.
    #[error(
        "the database URL from {origin} has an unknown parameter after its '?': tokend knows sslmode, \
         sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, application_name, \
         target_session_attrs, options and statement-cache-capacity; in a password write '?' as %3F"
    )]
    DatabaseUrlParameter {
        /// The flag, variable or file key that it came from.
        origin: &'static str,
    },
    /// The connection to the database could be read, or reach another server. The host is not
    /// repeated: it may be part of a password that was not percent-encoded.
    #[error(
        "the database URL from {origin} leads to another host, and nothing verifies the server there: add \
         sslmode=verify-full (and sslrootcert=FILE for your own CA), or pass --database-insecure if the \
         network in between is trusted"
    )]
    DatabaseUnverified {
        /// The flag, variable or file key that it came from.
        origin: &'static str,
    },
    /// The password file cannot be used.
    #[error("cannot use the database password file {}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command that needs a database URL has none.
    #[error(
        "no database: set DATABASE_URL, or database-url in the --config file; for the private Postgres of \
         `tokend serve` pass its --data-dir (`migrate` is not needed there: serve migrates it)"
    )]
    NoDatabase,
    /// Connection settings are given, but no database.
    #[error(
        "--direct-database-url, --database-pooling, --database-password-file and --database-insecure apply \
         to --database-url, which is not set: set it too"
    )]
    NoDatabaseToPool,
    /// A setting has no effect.
    #[error("{flag} has no effect {why}: remove it")]
    WithoutEffect {
        /// The setting, as a flag.
        flag: &'static str,
        /// Where it has none, or what is missing.
        why: &'static str,
    },
    /// A database is configured, but no keyring.
    #[error(
        "a database needs a keyring that all its replicas share: create one with `tokend keygen --output \
         keyring` and pass it with --keyring, TOKEND_KEYRING or TOKEND_KEYS"
    )]
    NoKeyring,
    /// `TOKEND_KEYRING` and `TOKEND_KEYS` are both set.
    #[error("TOKEND_KEYRING and TOKEND_KEYS are both set: unset one of them")]
    TwoKeyrings,
    /// A keyring file cannot be read.
    #[error("cannot read the keyring {}", path.display())]
    KeyringUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The group or other users can read a keyring file.
    #[error(
        "the keyring {0} can be read by others (mode {mode:03o}): run `chmod 600 {0}`",
        path.display()
    )]
    KeyringExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A keyring has no key, an invalid line or a duplicate key.
    #[error("{origin} is not a valid keyring")]
    KeyringInvalid {
        /// Where the keyring came from.
        origin: KeyringOrigin,
        /// What is wrong, with the line number.
        #[source]
        source: KeyringError,
    },
    /// The secret prefix is not `[a-z][a-z0-9]{1,15}`.
    #[error("invalid secret prefix")]
    SecretPrefix(#[source] PrefixError),
    /// Argon2id does not allow this combination of costs.
    #[error("invalid Argon2id cost: check the argon2 settings")]
    Cost(#[source] DurableError),
    /// Plaintext would leave the machine.
    #[error(
        "refusing to serve plaintext on {0}, which is not loopback: secrets would cross the network \
         unencrypted; set --tls-certificate, or pass --insecure-plaintext if something in front encrypts"
    )]
    PlaintextExposed(SocketAddr),
    /// A TLS file is named without another one that it needs.
    #[error("{given} needs {missing}: set both")]
    TlsIncomplete {
        /// The flag that was given.
        given: &'static str,
        /// The flag that was not.
        missing: &'static str,
    },
    /// Client certificates are mapped, but none would ever be requested.
    #[error(
        "the file's [[client-certificate]] needs --tls-client-ca: without it no client certificate is \
         requested"
    )]
    MappingWithoutCa,
    /// A mapping of a client certificate is not valid.
    #[error("the client certificate mapping for '{name}' is not valid: {problem}")]
    Mapping {
        /// The certificate's name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The gateways' organization is not a valid id.
    #[error("--gateway-organization is not an organization's id: it {0}")]
    GatewayOrganization(FieldError),
    /// The prefix of the identity headers is invalid.
    #[error("--identity-header-prefix: it {0}")]
    IdentityHeaderPrefix(FieldError),
    /// One of several origins is invalid.
    #[error("{setting}: number {number} is not an origin: it {problem}")]
    ListedOrigin {
        /// The setting that lists them.
        setting: &'static str,
        /// Its number, from 1. The text is not repeated: a URL may hold a password.
        number: usize,
        /// What is wrong.
        problem: FieldError,
    },
    /// Portal sessions cannot be shown in frames.
    #[error(
        "--console-embed-origins needs a console that browsers reach by TLS or on loopback: elsewhere they keep no \
         session in a frame"
    )]
    PrivatePostgresPlaintext,
    /// The console's origin is invalid.
    #[error("--console-origin is no origin: it {0}")]
    ConsoleOrigin(FieldError),
    /// The console can be reached from other machines, but by no name.
    #[error(
        "the console listens on {0}, which is not loopback: say by which name browsers reach it, as in \
         --console-origin https://tokens.example.org"
    )]
    ConsoleWithoutOrigin(SocketAddr),
    /// The console's origin is not encrypted.
    #[error(
        "--console-origin must be https://, since secrets are typed there; http:// is for the names of loopback, or for \
         a network that --insecure-plaintext trusts, and never beside --tls-certificate"
    )]
    ConsoleOriginPlaintext,
    /// The scope required for the API server's tokens is invalid.
    #[error("--token-review is not a scope: it {0}")]
    TokenReview(FieldError),
    /// Token reviews are on, but the HTTP listener is off.
    #[error("--token-review needs HTTP, which is off: set --http-listen")]
    TokenReviewWithoutListener,
    /// The collector's address is invalid.
    #[error(
        "--otlp-endpoint must be https://HOST:PORT, or http://HOST:PORT on this machine, of a collector that \
         accepts OTLP over gRPC, without a path"
    )]
    OtlpEndpoint,
    /// Spans would cross the network in plaintext.
    #[error(
        "refusing to send spans in plaintext to another host: use https:// in --otlp-endpoint, or pass \
         --otlp-insecure if the network in between is trusted"
    )]
    OtlpPlaintext,
    /// `--no-migrate` with the private Postgres, which only serve migrates.
    #[error("--no-migrate needs a database URL: only serve itself migrates its private Postgres")]
    NoMigrateWithoutDatabase,
    /// The environment does not determine a data directory.
    #[error("there is no default data directory because HOME is not set: pass --data-dir")]
    NoDataDirectory,
    /// A path cannot be made absolute.
    #[error("cannot make the data directory's path absolute")]
    DataDirectory(#[source] io::Error),
}

impl ConfigError {
    /// Refuses a setting that is not used: its owner believes that it has an effect. `why` says what is missing.
    pub(crate) fn demand(flag: &'static str, used: bool, why: &'static str) -> Result<(), Self> {
        if used { Ok(()) } else { Err(Self::WithoutEffect { flag, why }) }
    }
}

/// Where the text of a keyring came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringOrigin {
    /// A file.
    File(PathBuf),
    /// The variable `TOKEND_KEYS`.
    Environment,
}

impl fmt::Display for KeyringOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment => formatter.write_str("TOKEND_KEYS"),
        }
    }
}
