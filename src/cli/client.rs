//! How the operator's commands reach a running tokend: its address, and the caller's secret. `tokend-client`
//! does the connection, the calls and their retries; here are the settings and the error messages.

use std::cell::Cell;
use std::error::Error as _;
use std::fs;
use std::time::Duration;

use secrecy::SecretString;
use tokend_client::{Connection, ConnectionError, ErrorKind, RawClient, Repeatable};
use tonic::{ConnectError, Request, Response, Status};

use super::caller::caller_secret;
pub(super) use super::client_error::ClientError;
use super::login::renewal::secret;
use super::{CommandError, RpcError, unreachable};
pub(super) use crate::config::AddressFlag;
use crate::config::{AddressSettings, Environment};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The most attempts of a call: with the client's pauses they take one to two seconds, in which a
/// server may restart.
const ATTEMPTS: u32 = 8;

/// Where the caller's secret is from.
#[derive(Debug, Clone, Copy)]
enum SecretOrigin {
    /// This setting.
    Setting(&'static str),
    /// `tokend login`.
    Login,
}

/// The address of a running tokend, and how to connect to it.
#[derive(Clone)]
pub(super) struct ServerAddress {
    text: String,
    setting: &'static str,
    connection: Connection,
    origin: Option<SecretOrigin>,
}

impl ServerAddress {
    /// Takes the flags, else the environment, else the default; reads the CA.
    pub(super) fn resolve(flag: AddressFlag, environment: &Environment) -> Result<Self, CommandError> {
        let AddressSettings { url, origin: setting, insecure, ca } = flag.resolve(environment)?;
        let mut connection = Connection::to(&*url)
            .connect_timeout(CONNECT_TIMEOUT)
            .call_timeout(CALL_TIMEOUT)
            .attempts(ATTEMPTS);
        if insecure {
            connection = connection.allow_plaintext();
        }
        if let Some(path) = ca {
            connection = connection.ca(fs::read(&path).map_err(|source| ClientError::Ca { path, source })?);
        }
        Ok(Self { text: url, setting, connection, origin: None })
    }

    /// Returns the URL as it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Sets the secret of a login as that of the caller.
    pub(super) fn of_login(self, secret: SecretString) -> Self {
        self.of_caller(secret, SecretOrigin::Login)
    }

    fn of_caller(self, secret: SecretString, origin: SecretOrigin) -> Self {
        Self { connection: self.connection.secret(secret), origin: Some(origin), ..self }
    }

    /// Creates a client, without a caller unless one was set; must be called within a runtime. Sends nothing yet.
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
    origin: Option<SecretOrigin>,
    inner: tokend_client::Client,
}

impl Client {
    /// Reads the caller's secret and creates its client; must be called within a runtime. Without a secret in the
    /// settings it is that of the login at this address, which is renewed if it is due; otherwise sends nothing yet.
    pub(super) async fn open(address: AddressFlag, environment: &Environment) -> Result<Self, CommandError> {
        let address = ServerAddress::resolve(address, environment)?;
        let address = match caller_secret(environment)? {
            Some((secret, setting)) => address.of_caller(secret, SecretOrigin::Setting(setting)),
            None => match secret(&address.text, &address.connection, environment).await? {
                Some(secret) => address.of_login(secret),
                None => return Err(ClientError::NoSecret.into()),
            },
        };
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
                let address = self.address.clone();
                match origin {
                    SecretOrigin::Setting(origin) => {
                        ClientError::NotAccepted { address, origin, source: error.into() }.into()
                    }
                    SecretOrigin::Login => ClientError::LoginEnded { address }.into(),
                }
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
    use clap::{Args as _, FromArgMatches as _};

    use super::*;
    use crate::config::Account;

    /// What a command line with these flags resolves to.
    fn resolved(flags: &[&str], pairs: &[(&str, &str)]) -> Result<ServerAddress, CommandError> {
        let command = AddressFlag::augment_args(clap::Command::new("tokend").no_binary_name(true));
        let flag = AddressFlag::from_arg_matches(&command.get_matches_from(flags)).unwrap();
        ServerAddress::resolve(flag, &Environment::of_pairs(pairs, Account::Ordinary))
    }

    fn refusal(flags: &[&str], pairs: &[(&str, &str)]) -> Option<ClientError> {
        resolved(flags, pairs).unwrap().open().err()
    }

    #[tokio::test]
    async fn a_secret_is_sent_to_another_host_only_over_tls_unless_allowed() {
        for address in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://localhost:1"]
        {
            assert!(refusal(&["--address", address], &[]).is_none(), "{address}");
        }
        for address in [
            "http://tokend.example:1",
            "http://192.0.2.1:1",
            "http://0.0.0.0:1",
            "http://127.0.0.1.example:1",
        ] {
            let flags = ["--address", address, "--address-insecure"];
            assert!(matches!(refusal(&flags[..2], &[]), Some(ClientError::Plaintext)), "{address}");
            assert!(refusal(&flags, &[]).is_none(), "{address}");
            let allowed = [("TOKEND_ADDRESS_INSECURE", "true")];
            assert!(refusal(&flags[..2], &allowed).is_none(), "{address}");
        }
        let encrypted = ["--address", "https://tokend.example:1", "--address-insecure"];
        assert!(refusal(&encrypted[..2], &[]).is_none());
        assert!(matches!(resolved(&encrypted, &[]), Err(CommandError::Config(_))));
    }

    #[test]
    fn a_ca_in_the_environment_is_read_only_for_addresses_with_tls() {
        for (address, refused) in [("http://localhost:1", false), ("https://localhost:1", true)] {
            let outcome = resolved(&["--address", address], &[("TOKEND_CA", "/nowhere")]);
            let unreadable = matches!(outcome, Err(CommandError::Client(ClientError::Ca { .. })));
            assert_eq!(unreadable, refused, "{address}");
        }
        let given = resolved(&["--address", "http://localhost:1", "--ca", "/nowhere"], &[]);
        assert!(matches!(given, Err(CommandError::Client(ClientError::Ca { .. }))));
    }

    #[tokio::test]
    async fn an_invalid_address_is_refused_with_its_setting() {
        for address in [
            "ftp://localhost:1",
            "https://u:canary@localhost:1",
            "http://localhost",
            "http://localhost:99999",
        ] {
            for (flags, variables, setting) in [
                (&["--address", address][..], &[][..], "--address"),
                (&[], &[("TOKEND_ADDRESS", address)], "TOKEND_ADDRESS"),
            ] {
                let message = refusal(flags, variables).unwrap().to_string();

                assert!(message.starts_with(setting) && !message.contains("canary"), "{message}");
            }
        }
    }
}
