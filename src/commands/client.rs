//! How the operator's commands reach a running tokend: its address, and the caller's secret.
//!
//! The secret comes from the environment or from a file, and goes to `tokend-client` alone, which makes the connection,
//! the calls and their retries.

use std::cell::Cell;
use std::error::Error as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokend_client::{Connection, ConnectionError, ErrorKind, RawClient, Repeatable};
use tonic::{ConnectError, Request, Response, Status};
use zeroize::Zeroizing;

use super::{CommandError, RpcError};
use crate::config::{Environment, Switch};
use crate::private_file::is_exposed;

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:50051";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a call is tried at most: with the client's pauses, for about a second or two, in which a server may be
/// started again.
const ATTEMPTS: u32 = 8;

/// Which tokend to ask.
#[derive(Args)]
pub(super) struct AddressFlag {
    #[arg(
        long,
        value_name = "URL",
        help = "Address of a running tokend, http://HOST:PORT or https://HOST:PORT [env: TOKEND_ADDRESS] \
                [default: http://127.0.0.1:50051]"
    )]
    address: Option<String>,

    #[arg(
        long,
        value_name = "FILE",
        help = "CA of the server's certificate, PEM, beside those that the system trusts [env: TOKEND_CA]"
    )]
    ca: Option<PathBuf>,

    #[arg(
        long,
        help = "Ask a tokend on another host in plaintext: whoever can read the network on the way sees the caller's \
                secret [env: TOKEND_ADDRESS_INSECURE]"
    )]
    address_insecure: bool,
}

/// Why a running tokend could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is none.
    #[error("the address must be http://HOST:PORT or https://HOST:PORT (--address or TOKEND_ADDRESS)")]
    Address,
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
    #[error("cannot reach a tokend at {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: tokend_client::Error,
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
    #[error("the text in {0} is no secret: it must be one word of letters, digits and _")]
    NotASecret(&'static str),
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

/// Where a running tokend listens.
pub(super) struct ServerAddress {
    text: String,
    connection: Connection,
}

impl AddressFlag {
    /// Takes the flags, else the environment, else the default.
    pub(super) fn resolve(self, environment: &Environment) -> Result<ServerAddress, CommandError> {
        let given = match self.address {
            Some(address) => Some(address),
            None => environment.text("TOKEND_ADDRESS")?,
        };
        let text = given.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let insecure = match Switch::of_flag(self.address_insecure) {
            Some(said) => Some(said),
            None => environment.value("TOKEND_ADDRESS_INSECURE")?,
        };
        let mut connection = Connection::to(&*text)
            .connect_timeout(CONNECT_TIMEOUT)
            .call_timeout(CALL_TIMEOUT)
            .attempts(ATTEMPTS);
        if insecure.is_some_and(Switch::is_on) {
            connection = connection.allow_plaintext();
        }
        let ca = match self.ca {
            Some(path) => Some(path),
            // Of use to the addresses that have TLS.
            None if text.starts_with("https://") => environment.value("TOKEND_CA")?,
            None => None,
        };
        if let Some(path) = ca {
            connection = connection.ca(fs::read(&path).map_err(|source| ClientError::Ca { path, source })?);
        }
        Ok(ServerAddress { text, connection })
    }
}

impl ServerAddress {
    /// Makes a client without a caller; to be called within a runtime. Nothing is sent yet.
    pub(super) fn open(self) -> Result<Client, ClientError> {
        let client = self.connection.open().map_err(|error| match error {
            ConnectionError::Address => ClientError::Address,
            ConnectionError::Plaintext => ClientError::Plaintext,
            other => ClientError::Connection(other),
        })?;
        Ok(Client { address: self.text, client })
    }
}

/// A caller of a running tokend.
pub(super) struct Client {
    address: String,
    client: tokend_client::Client,
}

impl Client {
    /// Reads the caller's secret and makes its client; to be called within a runtime. Nothing is sent yet.
    pub(super) fn open(address: AddressFlag, environment: &Environment) -> Result<Self, CommandError> {
        let mut address = address.resolve(environment)?;
        address.connection = address.connection.secret(caller_secret(environment)?);
        Ok(address.open()?)
    }

    /// Makes a call, again where that does no harm and nothing is known.
    pub(super) async fn call<M: Clone, R, F>(
        &self,
        repeatable: Repeatable,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, CommandError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.client.call(repeatable, message, call).await.map_err(|error| self.failed(error))
    }

    /// The client itself, for a stream that ends when its reader says and for the server's health.
    pub(super) fn inner(&self) -> &tokend_client::Client {
        &self.client
    }

    /// Makes a call that makes a token, and says by which request id it can be asked for again where its answer is
    /// lost.
    pub(super) async fn make<M: Clone, R, F>(
        &self,
        request_id: &str,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, CommandError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        // Whether no attempt can have reached the server; one that is broken off may have.
        let unsent = Cell::new(true);
        let (call, unsent) = (&call, &unsent);
        let attempt = |raw, request| async move {
            let all_before = unsent.replace(false);
            let outcome = call(raw, request).await;
            unsent.set(all_before && outcome.as_ref().is_err_and(had_no_connection));
            outcome
        };
        self.client.call(Repeatable::Yes, message, attempt).await.map_err(|error| {
            let lost = matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable);
            let source = self.failed(error);
            if lost && !unsent.get() {
                CommandError::OutcomeUnknown { request_id: request_id.to_owned(), source: Box::new(source) }
            } else {
                source
            }
        })
    }

    /// Tells a refusal from a server that is not there.
    pub(super) fn failed(&self, error: tokend_client::Error) -> CommandError {
        let by_the_transport = error.code().is_none() || error.source().is_some();
        match error.kind() {
            ErrorKind::DeadlineExceeded if by_the_transport => ClientError::Silent(CALL_TIMEOUT).into(),
            ErrorKind::Unavailable if by_the_transport => {
                ClientError::Unreachable { address: self.address.clone(), source: error }.into()
            }
            _ => RpcError::from(error).into(),
        }
    }
}

/// Tells whether a call failed because there was no connection for it.
fn had_no_connection(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(found) = cause {
        if found.is::<ConnectError>() {
            return true;
        }
        cause = found.source();
    }
    false
}

/// Reads the caller's secret: `TOKEND_SECRET` wins over `TOKEND_SECRET_FILE`.
fn caller_secret(environment: &Environment) -> Result<SecretString, CommandError> {
    let (secret, origin) = if let Some(secret) = environment.text("TOKEND_SECRET")? {
        (SecretString::from(secret), "TOKEND_SECRET")
    } else if let Some(path) = environment.value::<PathBuf>("TOKEND_SECRET_FILE")? {
        (first_line(&secret_file(path)?), "the file of TOKEND_SECRET_FILE")
    } else {
        return Err(ClientError::NoSecret.into());
    };
    let word = secret.expose_secret();
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(ClientError::NotASecret(origin).into());
    }
    Ok(secret)
}

/// Reads the file with the caller's secret, which nobody else may.
fn secret_file(path: PathBuf) -> Result<Zeroizing<String>, ClientError> {
    let read = fs::File::open(&path).and_then(|mut file| {
        // Asked of the open file: the path may lead elsewhere a moment later.
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

/// Takes one line ending off, as editors and `echo` leave one, and nothing else.
pub(super) fn first_line(text: &str) -> SecretString {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Account;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of_pairs(pairs, Account::Ordinary)
    }

    #[test]
    fn the_secret_itself_wins_over_its_file() {
        let value =
            caller_secret(&environment(&[("TOKEND_SECRET", "tokd_a"), ("TOKEND_SECRET_FILE", "/nowhere")]));

        assert_eq!(value.unwrap().expose_secret(), "tokd_a");
    }

    #[test]
    fn one_line_ending_of_a_secret_file_is_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "tokd_b\n").unwrap();
        let read = || caller_secret(&environment(&[("TOKEND_SECRET_FILE", path.to_str().unwrap())]));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read();
        assert!(matches!(refused, Err(CommandError::Client(ClientError::SecretFileExposed { .. }))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read().unwrap().expose_secret(), "tokd_b");
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_and_not_repeated() {
        let refused = caller_secret(&environment(&[("TOKEND_SECRET", "canary text")]));

        let error = refused.unwrap_err();
        assert!(matches!(error, CommandError::Client(ClientError::NotASecret("TOKEND_SECRET"))));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[tokio::test]
    async fn a_secret_leaves_this_machine_by_tls_unless_it_is_said() {
        let resolve = |address: &str, address_insecure, pairs: &[(&str, &str)]| {
            let flag = AddressFlag { address: Some(address.to_owned()), ca: None, address_insecure };
            flag.resolve(&environment(pairs)).unwrap().open().err()
        };
        for address in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://localhost:1"]
        {
            assert!(resolve(address, false, &[]).is_none(), "{address}");
        }
        for address in
            ["http://tokend.example:1", "http://192.0.2.1:1", "http://0.0.0.0:1", "http://127.0.0.1.example"]
        {
            let refused = resolve(address, false, &[]);
            assert!(matches!(refused, Some(ClientError::Plaintext)), "{address}");
            assert!(resolve(address, true, &[]).is_none(), "{address}");
            assert!(resolve(address, false, &[("TOKEND_ADDRESS_INSECURE", "true")]).is_none(), "{address}");
        }
        let flag = AddressFlag {
            address: Some("https://tokend.example:1".to_owned()),
            ca: None,
            address_insecure: false,
        };
        assert!(flag.resolve(&environment(&[])).unwrap().open().is_ok());
    }

    #[tokio::test]
    async fn an_address_that_is_no_plain_url_is_refused() {
        for address in [
            "ftp://localhost:1",
            "localhost:1",
            "https://u:p@localhost:1",
            "http://u:p@localhost:1",
            "http://",
        ] {
            let flag = AddressFlag { address: Some(address.to_owned()), ca: None, address_insecure: false };

            let refused = flag.resolve(&environment(&[])).unwrap().open().err();

            assert!(matches!(refused, Some(ClientError::Address)), "{address}");
        }
    }
}
