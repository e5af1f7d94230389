//! Why a command could not ask a running tokend, or got no response. Names the wrong setting, and
//! never its value where that is a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use tokend_client::ConnectionError;

use super::login::callback::CodeError;
use super::login::file::LoginFileError;
use super::{CommandError, RpcError};

/// Why a running tokend could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is invalid.
    #[error("{setting} is not a valid address: {problem}; write http://HOST:PORT or https://HOST:PORT")]
    Address {
        /// The setting that it came from.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The caller's secret would cross the network in plaintext.
    #[error(
        "refusing to send the secret to another host in plaintext: use https:// in the address, or pass \
         --address-insecure if the network in between is trusted"
    )]
    Plaintext,
    /// The CA cannot be read.
    #[error("cannot read the CA {}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection's settings cannot be used.
    #[error("cannot connect with --address and --ca as they are")]
    Connection(#[source] ConnectionError),
    /// Nothing responds at the address.
    #[error("cannot reach a tokend at {address} ({setting}): {advice}")]
    Unreachable {
        /// The address.
        address: String,
        /// The setting that it came from.
        setting: &'static str,
        /// What to do.
        advice: &'static str,
        /// Why.
        #[source]
        source: Box<tokend_client::Error>,
    },
    /// No secret is given.
    #[error(
        "no secret of a caller: run `tokend login`, or set TOKEND_SECRET, or set TOKEND_SECRET_FILE to the path of a \
         file that holds it"
    )]
    NoSecret,
    /// There is no login at this address.
    #[error("not logged in at {address}: run `tokend login`")]
    NotLoggedIn {
        /// The address.
        address: String,
    },
    /// The server does not accept the login any more.
    #[error("the login at {address} has ended: run `tokend login`")]
    LoginEnded {
        /// The address.
        address: String,
    },
    /// The login could not be revoked.
    #[error(
        "still logged in, because the token of the login could not be revoked: try again, or forget the login with \
         --force"
    )]
    NotLoggedOut {
        /// Why.
        #[source]
        source: Box<CommandError>,
    },
    /// The file of a login cannot be used.
    #[error(transparent)]
    LoginFile(#[from] LoginFileError),
    /// There is no code of a login.
    #[error(transparent)]
    LoginCode(#[from] CodeError),
    /// The file with the secret cannot be read.
    #[error("cannot read the file that TOKEND_SECRET_FILE names, {}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other users can read the file with the secret.
    #[error(
        "others can read the file that TOKEND_SECRET_FILE names, {}: run `chmod 600` on it, and rotate the \
         token if somebody may have read it",
        path.display()
    )]
    SecretFileExposed {
        /// The file.
        path: PathBuf,
    },
    /// The given text cannot be a secret.
    #[error(
        "the text in {origin} is not a token's secret: {problem}; copy the secret again from where you \
         stored it"
    )]
    NotASecret {
        /// The setting that it came from.
        origin: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The server does not accept the caller's secret.
    #[error(
        "the tokend at {address} does not accept the secret in {origin}: use the secret of an active token"
    )]
    NotAccepted {
        /// The address.
        address: String,
        /// The setting that the secret came from.
        origin: &'static str,
        /// The server's error.
        #[source]
        source: RpcError,
    },
    /// Standard input cannot be read.
    #[error("cannot read a secret from standard input")]
    Input(#[source] io::Error),
    /// A required field is missing in the server's response.
    #[error("the server's response has no {0}")]
    Incomplete(&'static str),
    /// The server reports that it cannot serve.
    #[error("the server is not serving ({0})")]
    NotServing(&'static str),
    /// The server did not respond in time.
    #[error("the server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
}
