//! Why a command failed, told to the person who ran it.
//!
//! Commands make these, `main` prints them with their causes. None holds a secret.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::client::ClientError;
use super::rpc_error::RpcError;
use crate::actions::ActionError;
use crate::config::ConfigError;
use crate::embedded::EmbeddedError;
use crate::server::ServeError;
use crate::store::Finding;
use crate::store::{MigrateError, StoreError};
use crate::telemetry::TelemetryError;
use crate::tls::TlsError;

/// Why a command ends with exit status 1.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Logging cannot begin.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The asynchronous runtime cannot start.
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] io::Error),
    /// The process cannot begin anew without PGOPTIONS.
    #[error("PGOPTIONS is set, which the private Postgres must not be given: unset it")]
    SessionOptions(#[source] io::Error),
    /// The process cannot listen for signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The audit log is not what was sealed.
    #[error("the audit log is not as it was sealed: seal {sequence}: {}", described(*.finding))]
    AuditLog {
        /// The seal's number.
        sequence: i64,
        /// What was found.
        finding: Finding,
    },
    /// The address is taken.
    #[error("{0} is in use, by another tokend perhaps: stop that, or choose another address with --listen")]
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
    /// Standard output leads nowhere: a secret would be lost.
    #[error("standard output is closed or /dev/null, where the secret would be lost: nothing was done")]
    OutputNowhere,
    /// A secret that was made could not be printed.
    #[error(
        "the token {token_id} was made, but its secret could not be printed: {}",
        match request_id {
            Some(_) => "repeat the command with the same --request-id within 24 hours, which shows it again",
            None => "revoke it and make another; with --request-id it could have been shown again",
        }
    )]
    SecretNotPrinted {
        /// The token.
        token_id: String,
        /// By what the request can be repeated, if its sender knows.
        request_id: Option<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The private Postgres did not start or stop.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
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
    /// The first root token was not made.
    #[error("cannot make a root token")]
    Bootstrap(#[source] ActionError),
    /// There is a root token already.
    #[error(
        "an active root token exists: use its secret, or revoke it (by psql, if it is lost) and \
         run bootstrap again"
    )]
    RootExists,
    /// The server ended badly.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The database gave no answer.
    #[error("cannot ask the database")]
    Store(#[from] StoreError),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random(#[source] rand::rngs::SysError),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// A running tokend could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A running tokend refused.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// Says what was found in an operator's words.
/// Says of a seal what was found.
pub(super) const fn described(finding: Finding) -> &'static str {
    match finding {
        Finding::Genuine => "its events are as they were",
        Finding::Purged => "its events were deleted for their age",
        Finding::Altered => "an event in its range was altered, removed or put in",
        Finding::Forged => "no key of the keyring has made it as it is: it was altered or put in",
        Finding::PurgeForged => "its events are gone, and no key of the keyring has marked them as purged",
        Finding::OutOfChain => "it is not behind a seal that is there: one was removed",
        Finding::UnknownKey => "a key that it was made or purged with is not in the keyring",
    }
}
