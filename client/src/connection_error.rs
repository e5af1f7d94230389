//! Why no client can be made. Nothing in it repeats a secret.

use std::error::Error as StdError;

/// What a provider may fail with.
pub type SourceError = Box<dyn StdError + Send + Sync>;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The address is none.
    #[error("the address must be http://HOST:PORT or https://HOST:PORT: {0}")]
    Address(&'static str),
    /// The secret would cross a network readable.
    #[error("plaintext to a host that is not this one: use https, or say that plaintext is allowed")]
    Plaintext,
    /// The text given as a secret can be none.
    #[error("the caller's secret must be one word of letters, digits and _")]
    Secret,
    /// Whatever gives the secret did not.
    #[error("the caller's secret cannot be read")]
    SecretSource(#[source] SourceError),
    /// The text given as a CA, or as the client's certificate, holds no certificate.
    #[error("{0} must be the text of a PEM file that holds certificates, not its path")]
    Certificate(&'static str),
    /// TLS was configured for an address without it.
    #[error(
        "a CA, a client certificate and a server's name are for https:// alone, and the address is http://"
    )]
    Unencrypted,
    /// Certificates or key cannot be used.
    #[error("the certificates, the key or the server's name cannot be used")]
    Tls(#[source] SourceError),
    /// There is no Tokio runtime here.
    #[error("a connection is opened within a Tokio runtime")]
    Runtime,
}
