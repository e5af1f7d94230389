//! How to connect to a tokend: address, credential, TLS and timeouts. The only file that creates a channel.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokend_core::link::is_this_machine;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::address;
use crate::client::Client;
pub use crate::connection_error::ConnectionError;
use crate::connection_error::SourceError;
use crate::credential::{Credential, Source};
use crate::retry::Retries;
#[cfg(feature = "_tls")]
use crate::tls::Tls;

/// The interval of pings on a connection without traffic, and how long a response to one may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// The error for an address with a character that no URL can have.
const NO_URL: &str = "it contains a character that no URL may contain";

/// The settings of a [`Client`]. Its `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Connection {
    address: String,
    encrypted: bool,
    plaintext_allowed: bool,
    secret: Option<Source>,
    #[cfg(feature = "_tls")]
    tls: Tls,
    connect_timeout: Duration,
    call_timeout: Duration,
    attempts: u32,
    repeat_spending: bool,
}

impl Connection {
    /// Starts with the address of a tokend, or of a load balancer: `http://HOST:PORT` or
    /// `https://HOST:PORT`.
    #[must_use]
    pub fn to(address: impl Into<String>) -> Self {
        let address = address.into();
        Self {
            encrypted: address.starts_with("https://"),
            address,
            plaintext_allowed: false,
            secret: None,
            #[cfg(feature = "_tls")]
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(5),
            attempts: u32::MAX,
            repeat_spending: false,
        }
    }

    /// Sets the caller's secret. For guards it needs `tokend:verify`, or `tokend:verify:any`.
    #[must_use]
    pub fn secret(self, secret: SecretString) -> Self {
        Self { secret: Some(Source::Fixed(secret)), ..self }
    }

    /// Sets a file with the caller's secret, which is read again every few seconds and when tokend
    /// refuses the secret: to rotate the token, rotate it with a grace and write the new secret to
    /// the file. White space around it is ignored.
    #[must_use]
    pub fn secret_file(self, path: impl Into<PathBuf>) -> Self {
        Self { secret: Some(Source::file(path.into())), ..self }
    }

    /// Sets a function that returns the caller's secret, called as often as a file would be read.
    /// It runs before calls, so it must be fast; if it fails, the last secret is used.
    #[must_use]
    pub fn secret_from(
        self,
        source: impl Fn() -> Result<SecretString, SourceError> + Send + Sync + 'static,
    ) -> Self {
        Self { secret: Some(Source::Function(Arc::new(source))), ..self }
    }

    /// Allows plaintext to other hosts, for networks that something else encrypts, such as a mesh.
    #[must_use]
    pub fn allow_plaintext(self) -> Self {
        Self { plaintext_allowed: true, ..self }
    }

    /// Sets how long connecting may take; 3 s by default.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets how long a call may take with all its retries; 5 s by default, at most a day. Sent as
    /// its deadline.
    #[must_use]
    pub fn call_timeout(self, timeout: Duration) -> Self {
        Self { call_timeout: timeout.min(Duration::from_hours(24)), ..self }
    }

    /// Sets the most attempts of a repeatable call, at least 1; by default as many as its deadline allows.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// Repeats also a Verify whose answer was lost after it may have spent of the limits of a token's plan: it then may
    /// spend twice. For installations without plans, or where spending twice is better than an error.
    #[must_use]
    pub fn repeat_spending(self) -> Self {
        Self { repeat_spending: true, ..self }
    }

    /// Creates the client. It connects on first use, and again whenever the connection is lost.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`ConnectionError`]: the settings cannot be used. Nothing is sent yet.
    pub fn open(&self) -> Result<Client, ConnectionError> {
        address::check(&self.address).map_err(ConnectionError::Address)?;
        #[cfg(feature = "_tls")]
        self.tls.check(self.encrypted)?;
        #[cfg(not(feature = "_tls"))]
        if self.encrypted {
            return Err(ConnectionError::NoTls);
        }
        let credential = self.secret.clone().map(Credential::new).transpose()?;
        if Handle::try_current().is_err() {
            return Err(ConnectionError::Runtime);
        }
        let channel = self.channel()?;
        let retries = Retries {
            attempts: self.attempts,
            timeout: self.call_timeout,
            repeat_spending: self.repeat_spending,
        };
        Ok(Client::new(channel, credential.map(Arc::new), retries))
    }

    fn channel(&self) -> Result<Channel, ConnectionError> {
        let endpoint =
            Endpoint::from_shared(self.address.clone()).map_err(|_| ConnectionError::Address(NO_URL))?;
        let host = endpoint.uri().host().ok_or(ConnectionError::Address(NO_URL))?;
        if !self.encrypted && !self.plaintext_allowed && !is_this_machine(host) {
            return Err(ConnectionError::Plaintext);
        }
        #[cfg(feature = "_tls")]
        let endpoint = if self.encrypted { self.tls.secure(endpoint)? } else { endpoint };
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .connect_lazy())
    }
}

/// Requires one of the features `tls-ring` and `tls-aws-lc`.
#[cfg(feature = "_tls")]
impl Connection {
    /// Accepts servers whose certificate this CA (PEM) has signed, in addition to CAs that the
    /// system trusts.
    #[must_use]
    pub fn ca(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { tls: Tls { ca: Some(pem.into()), ..self.tls }, ..self }
    }

    /// Sets the client certificate, PEM; if the server maps it, no secret is needed.
    #[must_use]
    pub fn client_certificate(self, certificate_pem: impl Into<Vec<u8>>, key_pem: SecretString) -> Self {
        let certificate = Some((certificate_pem.into(), key_pem));
        Self { tls: Tls { certificate, ..self.tls }, ..self }
    }

    /// Expects this name in the server's certificate instead of the address's host.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { tls: Tls { server_name: Some(name.into()), ..self.tls }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plaintext_to_another_host_must_be_allowed_explicitly() {
        for (address, expected) in [
            ("http://127.0.0.1:50051", true),
            ("http://[::1]:50051", true),
            ("http://localhost:50051", true),
            ("http://192.0.2.7:50051", false),
            ("http://tokend.example.org:50051", false),
            ("http://localhost.example.org:50051", false),
            ("https://tokend.example.org:50051", cfg!(feature = "_tls")),
        ] {
            assert_eq!(Connection::to(address).open().is_ok(), expected, "{address}");
            assert!(Connection::to(address).allow_plaintext().open().is_ok(), "{address}");
        }
        for bad in ["", "tokend:50051", "ftp://tokend", "http://", "http://user:canary@127.0.0.1:50051"] {
            let refused = Connection::to(bad).allow_plaintext().open();
            assert!(matches!(refused, Err(ConnectionError::Address(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn debug_output_shows_no_secret_and_an_invalid_secret_is_refused() {
        let connection = Connection::to("http://127.0.0.1:50051").secret("canary".into());
        assert!(!format!("{connection:?} {:?}", connection.open().unwrap()).contains("canary"));
        let certified = connection.client_certificate("public", "canary".into());
        assert!(!format!("{certified:?}").contains("canary"));
        for bad in ["", "two words", "line\n"] {
            let refused = Connection::to("http://127.0.0.1:50051").secret(bad.into()).open();
            assert!(matches!(refused, Err(ConnectionError::Secret)), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_longest_timeout_does_not_overflow() {
        let client =
            Connection::to("http://127.0.0.1:1").call_timeout(Duration::MAX).attempts(1).open().unwrap();
        let refused = client.get_token(tokend_core::secret::TokenId::from_bytes([7; 16])).await;
        assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_is_refused_with_its_cause() {
        let absent =
            Connection::to("http://127.0.0.1:50051").secret_file("/nonexistent/secret").open().unwrap_err();
        assert!(
            matches!(absent, ConnectionError::SecretSource(_))
                && std::error::Error::source(&absent).is_some()
        );
    }

    #[test]
    fn nothing_panics_outside_a_runtime() {
        let opened = Connection::to("http://127.0.0.1:50051").open();
        assert!(matches!(opened, Err(ConnectionError::Runtime)));
    }
}
