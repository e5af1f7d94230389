//! How the operator's commands reach a running tokend: its address, and the caller's secret. `tokend-client`
//! does the connection, the calls and their retries; here are the settings and the error messages.

use std::cell::Cell;
use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokend_client::{Connection, ConnectionError, ErrorKind, RawClient, Repeatable};
use tonic::{ConnectError, Request, Response, Status};

use super::caller::caller_secret;
pub(super) use super::client_error::ClientError;
use super::{CommandError, RpcError, unreachable};
use crate::config::{ConfigError, Environment, Switch};

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:50051";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The most attempts of a call: with the client's pauses they take one to two seconds, in which a
/// server may restart.
const ATTEMPTS: u32 = 8;

/// The address of a running tokend, from flags.
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
        help = "CA of the server's certificate, PEM, in addition to those that the system trusts [env: \
             TOKEND_CA]"
    )]
    ca: Option<PathBuf>,

    #[arg(
        long,
        help = "Connect to a tokend on another host without TLS: anyone who can read the network in between \
             sees the caller's secret [env: TOKEND_ADDRESS_INSECURE]"
    )]
    address_insecure: bool,
}

/// The address of a running tokend, and how to connect to it.
pub(super) struct ServerAddress {
    text: String,
    setting: &'static str,
    connection: Connection,
    origin: Option<&'static str>,
}

impl AddressFlag {
    /// Takes the flags, else the environment, else the default.
    pub(super) fn resolve(self, environment: &Environment) -> Result<ServerAddress, CommandError> {
        let (text, setting) = if let Some(address) = self.address {
            (address, "--address")
        } else if let Some(address) = environment.text("TOKEND_ADDRESS")? {
            (address, "TOKEND_ADDRESS")
        } else {
            (DEFAULT_ADDRESS.to_owned(), "the default; set another one with --address or TOKEND_ADDRESS")
        };
        let used = !self.address_insecure || !text.starts_with("https://");
        ConfigError::demand("--address-insecure", used, "with an https:// address")?;
        let insecure = match Switch::of_flag(self.address_insecure) {
            Some(insecure) => Some(insecure),
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
            // Only used by addresses with TLS.
            None if text.starts_with("https://") => environment.value("TOKEND_CA")?,
            None => None,
        };
        if let Some(path) = ca {
            connection = connection.ca(fs::read(&path).map_err(|source| ClientError::Ca { path, source })?);
        }
        Ok(ServerAddress { text, setting, connection, origin: None })
    }
}

impl ServerAddress {
    /// Creates a client without a caller; must be called within a runtime. Sends nothing yet.
    pub(super) fn open(self) -> Result<Client, ClientError> {
        let inner = self.connection.open().map_err(|error| match error {
            ConnectionError::Address(problem) => ClientError::Address { setting: self.setting, problem },
            ConnectionError::Plaintext => ClientError::Plaintext,
            other => ClientError::Connection(other),
        })?;
        Ok(Client { address: self.text, setting: self.setting, origin: self.origin, inner })
    }
}

/// A client of a running tokend, with its settings for error messages.
pub(super) struct Client {
    address: String,
    setting: &'static str,
    origin: Option<&'static str>,
    inner: tokend_client::Client,
}

impl Client {
    /// Reads the caller's secret and creates its client; must be called within a runtime. Sends nothing yet.
    pub(super) fn open(address: AddressFlag, environment: &Environment) -> Result<Self, CommandError> {
        let mut address = address.resolve(environment)?;
        let (secret, origin) = caller_secret(environment)?;
        address.connection = address.connection.secret(secret);
        address.origin = Some(origin);
        Ok(address.open()?)
    }

    /// Makes a call, and repeats it where that is safe and the outcome is unknown.
    pub(super) async fn call<M: Clone, R, F>(
        &self,
        repeatable: Repeatable,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, CommandError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.inner.call(repeatable, message, call).await.map_err(|error| self.failed(error))
    }

    /// Returns the inner client, for streams and for the server's health.
    pub(super) fn inner(&self) -> &tokend_client::Client {
        &self.inner
    }

    /// Makes a call that creates a token; if its response is lost, the error names the request id
    /// to repeat it with.
    pub(super) async fn make<M: Clone, R, F>(
        &self,
        request_id: &str,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, CommandError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        // Whether no attempt can have reached the server; a cancelled one may have.
        let unsent = Cell::new(true);
        let (call, unsent) = (&call, &unsent);
        let attempt = |raw, request| async move {
            let all_before = unsent.replace(false);
            let outcome = call(raw, request).await;
            unsent.set(all_before && outcome.as_ref().is_err_and(had_no_connection));
            outcome
        };
        self.inner.call(Repeatable::Yes, message, attempt).await.map_err(|error| {
            let lost = matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable);
            let source = self.failed(error);
            if lost && !unsent.get() {
                CommandError::OutcomeUnknown { request_id: request_id.to_owned(), source: Box::new(source) }
            } else {
                source
            }
        })
    }

    /// Builds the error of a failed call: distinguishes a refusal from a server that was not reached.
    pub(super) fn failed(&self, error: tokend_client::Error) -> CommandError {
        let by_the_transport = error.code().is_none() || error.source().is_some();
        match error.kind() {
            ErrorKind::DeadlineExceeded if by_the_transport => ClientError::Silent(CALL_TIMEOUT).into(),
            ErrorKind::Unavailable if by_the_transport => ClientError::Unreachable {
                address: self.address.clone(),
                setting: self.setting,
                advice: unreachable::advice(&error, self.address.starts_with("https://")),
                source: Box::new(error),
            }
            .into(),
            ErrorKind::Unauthenticated if let Some(origin) = self.origin => {
                let (address, source) = (self.address.clone(), error.into());
                ClientError::NotAccepted { address, origin, source }.into()
            }
            _ => RpcError::from(error).into(),
        }
    }
}

/// Returns whether a call failed because it got no connection.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Account;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of_pairs(pairs, Account::Ordinary)
    }

    #[tokio::test]
    async fn a_secret_is_sent_to_another_host_only_over_tls_unless_allowed() {
        let resolve = |address: &str, address_insecure, pairs: &[(&str, &str)]| {
            let flag = AddressFlag { address: Some(address.to_owned()), ca: None, address_insecure };
            flag.resolve(&environment(pairs)).unwrap().open().err()
        };
        for address in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://localhost:1"]
        {
            assert!(resolve(address, false, &[]).is_none(), "{address}");
        }
        for address in [
            "http://tokend.example:1",
            "http://192.0.2.1:1",
            "http://0.0.0.0:1",
            "http://127.0.0.1.example:1",
        ] {
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
    async fn an_invalid_address_is_refused_with_its_setting() {
        for address in [
            "ftp://localhost:1",
            "https://u:canary@localhost:1",
            "http://localhost",
            "http://localhost:99999",
        ] {
            let flag = |address: Option<&str>| AddressFlag {
                address: address.map(str::to_owned),
                ca: None,
                address_insecure: false,
            };
            for (flag, variables, setting) in [
                (flag(Some(address)), &[][..], "--address"),
                (flag(None), &[("TOKEND_ADDRESS", address)], "TOKEND_ADDRESS"),
            ] {
                let message =
                    flag.resolve(&environment(variables)).unwrap().open().err().unwrap().to_string();

                assert!(message.starts_with(setting) && !message.contains("canary"), "{message}");
            }
        }
    }
}
