//! TLS for the server's listeners: certificate, key, client CA and revocation lists from files, read again
//! when they change, so that a renewed certificate needs no restart and ends no connection. Called by the
//! server and the listener. Knows no gRPC; the configuration decides what a client certificate allows.

mod admission;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

pub use self::admission::Admission;
use self::admission::Admissions;
use crate::clock;
use crate::domain::SubjectName;
use crate::secret::private_file::is_exposed;

/// The paths of the server's certificate and related files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, PEM; only its owner may read it.
    pub key: PathBuf,
    /// The CAs that client certificates are verified against, PEM. `None`: client certificates are
    /// not requested.
    pub client_ca: Option<PathBuf>,
    /// The revocation lists of these CAs, PEM, one of each CA that issues client certificates.
    /// `None`: revocation is not checked.
    pub client_crl: Option<PathBuf>,
}

/// The protocol within TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Other users than its owner can read the key.
    #[error("the key {} can be read by others; run: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// A file lacks its expected content.
    #[error("{} contains no {what} in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The expected content.
        what: &'static str,
    },
    /// The certificate and the key do not match, or cannot be used.
    #[error("the certificate, its key, the client CA or its revocation lists cannot be used")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The current TLS configuration.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    admissions: Admissions,
}

#[derive(Debug)]
struct Loaded {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    fingerprint: [u8; 32],
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = Contents::read(&files)?.parse(&files)?;
        Ok(Self { files, current: ArcSwap::from_pointee(loaded), admissions: Admissions::default() })
    }

    /// Returns the TLS configuration for the next connection of this protocol.
    #[must_use]
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(match protocol {
            Protocol::Grpc => &current.grpc,
            Protocol::Http => &current.http,
        })
    }

    /// Tracks a connection that `config` accepted with this certificate chain.
    pub fn admit(
        &self,
        chain: &[CertificateDer<'_>],
        protocol: Protocol,
        config: &Arc<ServerConfig>,
    ) -> Arc<Admission> {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let admission = self.admissions.add(chain);
        // A change in between has not seen this connection; a later one does.
        if !Arc::ptr_eq(&self.config(protocol), config)
            && let Some(verifier) = &self.current.load().verifier
        {
            admission.review(&**verifier, unix_time());
        }
        admission
    }

    /// Reads the files again if they have changed, and returns whether they had. Files that cannot
    /// be used change nothing.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        if contents.fingerprint() == self.current.load().fingerprint {
            return Ok(false);
        }
        let loaded = Arc::new(contents.parse(&self.files)?);
        self.current.store(Arc::clone(&loaded));
        if let Some(verifier) = &loaded.verifier {
            let ended = self.admissions.review(&**verifier, unix_time());
            if ended > 0 {
                tracing::info!(
                    connections = ended,
                    "ended: their client certificates are not accepted any more"
                );
            }
        }
        Ok(true)
    }
}

/// The contents of the files.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let key = Zeroizing::new(read(&files.key)?);
        let metadata = fs::metadata(&files.key)
            .map_err(|source| TlsError::Unreadable { path: files.key.clone(), source })?;
        if is_exposed(&metadata) {
            return Err(TlsError::Exposed(files.key.clone()));
        }
        Ok(Self {
            certificate: read(&files.certificate)?,
            key,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
            client_crl: files.client_crl.as_deref().map(read).transpose()?,
        })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let (ca, crl) = (self.client_ca.as_deref(), self.client_crl.as_deref());
        for part in [&*self.certificate, &**self.key, ca.unwrap_or_default(), crl.unwrap_or_default()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn parse(&self, files: &TlsFiles) -> Result<Loaded, TlsError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Empty { path: files.key.clone(), what: "private key" })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let verifier = self.verifier(files, provider)?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Loaded { grpc: Arc::new(config), http, verifier, fingerprint: self.fingerprint() })
    }

    fn verifier(
        &self,
        files: &TlsFiles,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (Some(path), Some(pem)) = (&files.client_ca, &self.client_ca) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, pem)? {
            roots.add(certificate).map_err(unusable)?;
        }
        // Callers may also present a secret and no certificate.
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        if let (Some(path), Some(pem)) = (&files.client_crl, &self.client_crl) {
            // With an expired list, or a CA without a list, revocation is unknown: no certificate
            // is accepted.
            builder = builder.with_crls(revocation_lists(path, pem)?).enforce_revocation_expiration();
        }
        Ok(Some(builder.build().map_err(unusable)?))
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, TlsError> {
    let path = path.as_ref();
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Empty { path: path.to_owned(), what: "certificate" }),
    }
}

fn revocation_lists(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Empty { path: path.to_owned(), what: "certificate revocation list" }),
    }
}

fn unix_time() -> UnixTime {
    let since = clock::now() - OffsetDateTime::UNIX_EPOCH;
    UnixTime::since_unix_epoch(since.try_into().unwrap_or_default())
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Unusable(Box::new(error))
}

/// The identity in a verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject alternative names.
    pub names: Vec<SubjectName>,
    /// The end of its validity, inclusive.
    pub not_after: OffsetDateTime,
}

impl ClientCertificate {
    /// Reads a certificate that has been verified already; `None` when it cannot be read.
    #[must_use]
    pub fn parse(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()?.map(|extension| &extension.value.general_names);
        let names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(SubjectName::dns(name)),
            GeneralName::URI(name) => Some(SubjectName::uri(name)),
            GeneralName::RFC822Name(name) => Some(SubjectName::email(name)),
            GeneralName::IPAddress(bytes) => address(bytes).map(SubjectName::ip),
            _ => None,
        });
        Some(Self { names: names.collect(), not_after: parsed.validity().not_after.to_datetime() })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
