//! Who is at the other end of a connection: in the extensions of each of its requests. Made by the API where it begins
//! to serve a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::transport::listener::Connection;
use crate::transport::tls::ClientCertificate;
use crate::verify::CredentialCache;

/// What is known of the peer of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it has proven to hold, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The credential that it has proven last, if any.
    pub credentials: Arc<CredentialCache>,
}

impl From<&Connection> for Peer {
    fn from(connection: &Connection) -> Self {
        Self {
            address: connection.address(),
            certificate: connection.certificate(),
            credentials: Arc::new(CredentialCache::new(connection.known())),
        }
    }
}
