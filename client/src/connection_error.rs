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
    #[error("plaintext to another host is refused: use https://, or allow plaintext")]
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
        "a CA, a client certificate and a server's name apply only to https://, but the address is http://"
    )]
    Unencrypted,
    /// The crate was built without TLS.
    #[error("https:// needs one of the features tls-ring and tls-aws-lc of tokend-client")]
    NoTls,
    /// No CA is trusted, so no server's certificate can be accepted.
    #[error(
        "no CA is trusted: pass one, or enable one of the features tls-native-roots and tls-webpki-roots of \
         tokend-client"
    )]
    NoRoots,
    /// The certificates or the key cannot be used.
    #[error("the certificates, the key or the server's name cannot be used")]
    Tls(#[source] SourceError),
    /// There is no Tokio runtime.
    #[error("open a connection within a Tokio runtime")]
    Runtime,
}
