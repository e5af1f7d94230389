//! TLS towards the server: its CA and name, and the client's certificate. Used by the connection.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::connection_error::ConnectionError;

/// Whether CAs are trusted besides a given one.
const HAS_ROOTS: bool = cfg!(any(feature = "tls-native-roots", feature = "tls-webpki-roots"));

/// The settings of TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) certificate: Option<(Vec<u8>, SecretString)>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Checks that the settings can be used, and are: an address without TLS would ignore them.
    pub(crate) fn check(&self, encrypted: bool) -> Result<(), ConnectionError> {
        let configured = self.ca.is_some() || self.certificate.is_some() || self.server_name.is_some();
        if configured && !encrypted {
            return Err(ConnectionError::Unencrypted);
        }
        if encrypted && self.ca.is_none() && !HAS_ROOTS {
            return Err(ConnectionError::NoRoots);
        }
        let client_certificate = self.certificate.as_ref().map(|(certificate, _)| certificate);
        for (pem, what) in [(self.ca.as_ref(), "the CA"), (client_certificate, "the client's certificate")] {
            if pem.is_some_and(|pem| !holds_certificates(pem)) {
                return Err(ConnectionError::Certificate(what));
            }
        }
        Ok(())
    }

    /// Sets TLS for an endpoint.
    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, ConnectionError> {
        let mut tls = ClientTlsConfig::new();
        if let Some(pem) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        if let Some((certificate, key)) = &self.certificate {
            tls = tls.identity(Identity::from_pem(certificate, key.expose_secret()));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        let secured = match endpoint.clone().tls_config(tls.clone().with_enabled_roots()) {
            // A container may have no CAs of its own.
            Err(_) if self.ca.is_some() => endpoint.tls_config(tls),
            secured => secured,
        };
        secured.map_err(|error| ConnectionError::Tls(error.into()))
    }
}

/// Returns whether a text has certificates, all of them valid: an invalid one would be left out silently.
fn holds_certificates(pem: &[u8]) -> bool {
    let mut read = RootCertStore::empty();
    let mut certificates = CertificateDer::pem_slice_iter(pem);
    certificates.all(|certificate| certificate.is_ok_and(|der| read.add(der).is_ok())) && !read.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    #[tokio::test]
    async fn unusable_or_ignored_tls_settings_are_refused() {
        let tls = || Connection::to("https://127.0.0.1:50051");
        let broken = "-----BEGIN CERTIFICATE-----\nnonsense!\n-----END CERTIFICATE-----\n";
        let no_certificate = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
        for pem in ["/etc/tokend/ca.pem", "", broken, no_certificate] {
            let refused = tls().ca(pem).open();
            assert!(matches!(refused, Err(ConnectionError::Certificate("the CA"))), "{pem}");
            let refused = tls().client_certificate(pem, "key".into()).open();
            assert!(matches!(refused, Err(ConnectionError::Certificate(_))), "{pem}");
        }
        let plain = || Connection::to("http://127.0.0.1:50051");
        for unused in [plain().ca("x"), plain().server_name("x"), plain().client_certificate("x", "x".into())]
        {
            assert!(matches!(unused.open(), Err(ConnectionError::Unencrypted)));
        }
    }
}
