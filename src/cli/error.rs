//! Why a command failed, for the person who ran it. Commands create these errors, `main` prints
//! them with their causes. None contains a secret.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::client_error::ClientError;
use super::rpc_error::RpcError;
use crate::config::ConfigError;
use crate::private_postgres::PrivatePostgresError;
use crate::server::ServeError;
use crate::store::{Finding, MigrateError, StoreError};
use crate::telemetry::TelemetryError;
use crate::tokens::ActionError;
use crate::transport::tls::TlsError;

/// Why a command ends with exit status 1.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Logging cannot start.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The asynchronous runtime cannot start.
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] io::Error),
    /// The process cannot restart without PGOPTIONS.
    #[error("PGOPTIONS is set, but the private Postgres must run without it: unset it")]
    SessionOptions(#[source] io::Error),
    /// The process cannot listen for signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The audit log differs from what was sealed.
    #[error("the audit log does not match its seals: seal {sequence}: {}", described(*.finding))]
    AuditLog {
        /// The seal's number.
        sequence: i64,
        /// What was found.
        finding: Finding,
    },
    /// The address is in use.
    #[error(
        "{0} is in use, perhaps by another tokend: stop that process, or choose another address with \
         --listen"
    )]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard output is not read: a secret would be lost.
    #[error(
        "standard output is closed or /dev/null, where the secret would be lost: nothing was done; write it \
         to a file with --output FILE"
    )]
    OutputNowhere,
    /// Standard output is a file in which others could read the secret.
    #[error(
        "standard output is a file that others can read (mode {mode:o}): nothing was done; use --output \
         FILE, which creates a file that nobody else can read"
    )]
    OutputExposed {
        /// The file's permissions.
        mode: u32,
    },
    /// The file for a secret already exists.
    #[error("{} already exists: nothing was done; choose another file with --output", path.display())]
    OutputExists {
        /// The file.
        path: PathBuf,
    },
    /// The file for a secret cannot be created.
    #[error("cannot create {}: nothing was done", path.display())]
    OutputFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The secret of a new token could not be written.
    #[error(
        "the token {token_id} was created, but its secret could not be written: repeat the command with \
         --request-id {request_id} to see the secret again, which works for 24 hours and while the caller's \
         own secret is accepted; otherwise revoke the token"
    )]
    SecretNotPrinted {
        /// The token.
        token_id: String,
        /// The id with which the request can be repeated.
        request_id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is unknown whether a token was created.
    #[error(
        "it is not known whether the token was created: repeat the command with --request-id {request_id}, \
         which creates it at most once and shows its secret; this works for 24 hours and while the caller's \
         own secret is accepted"
    )]
    OutcomeUnknown {
        /// The id with which the request can be repeated.
        request_id: String,
        /// Why.
        #[source]
        source: Box<CommandError>,
    },
    /// The private Postgres did not start or stop.
    #[error(transparent)]
    PrivatePostgres(#[from] PrivatePostgresError),
    /// A file of the data directory cannot be written.
    #[error("cannot write {}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Migrations were not applied.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The first root token was not created.
    #[error("cannot create a root token")]
    Bootstrap(#[source] ActionError),
    /// A root token already exists.
    #[error(
        "an active root token exists: use its secret, or revoke it (with psql, if its secret is lost) and \
         run bootstrap again"
    )]
    RootExists,
    /// The server ended with an error.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The database did not respond.
    #[error("cannot ask the database")]
    Store(#[from] StoreError),
    /// The operating system provides no random numbers.
    #[error("the operating system returned no random numbers")]
    Random(#[source] rand::rngs::SysError),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A label has two values.
    #[error("a label is given twice: give each key once")]
    LabelTwice,
    /// A running tokend could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A running tokend refused the call.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

impl CommandError {
    /// Returns the exit status: 2 for wrong usage, else 1.
    #[must_use]
    pub fn status(&self) -> u8 {
        if matches!(self, Self::LabelTwice) { 2 } else { 1 }
    }

    /// Returns whether the output's reader has gone, which a command that only shows something may ignore.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Describes a seal's finding.
pub(super) const fn described(finding: Finding) -> &'static str {
    match finding {
        Finding::Genuine => "its events are unchanged",
        Finding::Purged => "its events were deleted because of their age",
        Finding::Altered => "an event in its range was altered, removed or inserted",
        Finding::Forged => "no key of the keyring produces it: the seal was altered or inserted",
        Finding::PurgeForged => "its events are missing, and no key of the keyring marked them as purged",
        Finding::OutOfChain => "the seal before it is missing: it was removed",
        Finding::UnknownKey => {
            "the key that sealed it, or marked its events as purged, is not in the keyring"
        }
    }
}
