//! Why no client can be created. Repeats no secret.

use std::error::Error as StdError;

/// The error of a function that provides a secret.
pub type SourceError = Box<dyn StdError + Send + Sync>;

/// Why no client can be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The address is invalid.
    #[error("the address must be http://HOST:PORT or https://HOST:PORT: {0}")]
    Address(&'static str),
    /// The secret would cross a network in plaintext.
    #[error("plaintext to a host that is not this one: use https, or say that plaintext is allowed")]
    Plaintext,
    /// The given text cannot be a secret.
    #[error("the caller's secret must be one word of letters, digits and _")]
    Secret,
    /// The source of the secret failed.
    #[error("the caller's secret cannot be read")]
    SecretSource(#[source] SourceError),
    /// The CA, or the client's certificate, contains no certificate.
    #[error("{0} must be the text of a PEM file that holds certificates, not its path")]
    Certificate(&'static str),
    /// TLS was configured for an address without it.
    #[error(
        "a CA, a client certificate and a server's name are for https:// alone, and the address is http://"
    )]
    Unencrypted,
    /// The certificates or the key cannot be used.
    #[error("the certificates, the key or the server's name cannot be used")]
    Tls(#[source] SourceError),
    /// There is no Tokio runtime.
    #[error("a connection is opened within a Tokio runtime")]
    Runtime,
}
