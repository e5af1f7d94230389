//! The peer of a connection, stored in the extensions of each of its requests. Created by the API
//! when it starts to serve a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::transport::connection::Connection;
use crate::transport::tls::ClientCertificate;
use crate::verify::CredentialCache;

/// What is known about the peer of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its verified client certificate, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The credential that it proved last, if any.
    pub credentials: Arc<CredentialCache>,
}

impl From<&Connection> for Peer {
    fn from(connection: &Connection) -> Self {
        Self {
            address: connection.address(),
            certificate: connection.certificate(),
            credentials: Arc::new(CredentialCache::new(connection.authenticated())),
        }
    }
}
