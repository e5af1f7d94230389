//! Why a command could not ask a running tokend, or was not answered. Names the setting that is wrong, and never its
//! value where that is a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use tokend_client::ConnectionError;

use super::RpcError;

/// Why a running tokend could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{setting} is no address of a tokend: {problem}; write http://HOST:PORT or https://HOST:PORT")]
    Address {
        /// Where it was given.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The caller's secret would cross the network readable.
    #[error(
        "refusing to ask another host in plaintext: write https:// into the address, or say --address-insecure if \
         the network in between is trusted"
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
    /// What was given for the connection cannot be used.
    #[error("cannot make a connection of --address and --ca")]
    Connection(#[source] ConnectionError),
    /// Nothing answers at the address.
    #[error("cannot reach a tokend at {address} ({setting}): {advice}")]
    Unreachable {
        /// The address.
        address: String,
        /// Where it was given.
        setting: &'static str,
        /// What to do.
        advice: &'static str,
        /// Why.
        #[source]
        source: Box<tokend_client::Error>,
    },
    /// No secret is given.
    #[error("no secret to call with: set TOKEND_SECRET, or TOKEND_SECRET_FILE to its file")]
    NoSecret,
    /// The file with the secret cannot be read.
    #[error("cannot read the file of TOKEND_SECRET_FILE, {}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with the secret can be read by others.
    #[error(
        "others can read the file of TOKEND_SECRET_FILE, {}: chmod 600 it, and rotate the token if they may have",
        path.display()
    )]
    SecretFileExposed {
        /// The file.
        path: PathBuf,
    },
    /// What was given as a secret cannot be one.
    #[error("the text in {origin} is no secret of a token: {problem}; take it anew from where it is kept")]
    NotASecret {
        /// Where it was given.
        origin: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The server does not accept the caller's secret.
    #[error("the tokend at {address} does not accept the secret in {origin}: put one there that is good")]
    NotAccepted {
        /// The address.
        address: String,
        /// Where the secret was given.
        origin: &'static str,
        /// What the server says.
        #[source]
        source: RpcError,
    },
    /// Standard input cannot be read.
    #[error("cannot read a secret from standard input")]
    Input(#[source] io::Error),
    /// The server answered without what it promises.
    #[error("the server's answer lacks its {0}")]
    Incomplete(&'static str),
    /// The server says that it cannot serve.
    #[error("the server is not serving ({0})")]
    NotServing(&'static str),
    /// The server says nothing in time.
    #[error("the server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
}
