//! TLS for the server's own listeners: certificate, key and client CA from files, read again when they change,
//! so that a renewed certificate needs no restart and no connection ends for it. Called by the server and the
//! listener. Knows no gRPC; what a client certificate allows is the configuration's to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::private_file::is_exposed;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Where the server's certificate and what belongs to it are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, PEM; nobody but its owner may read it.
    pub key: PathBuf,
    /// The CAs that client certificates are verified against, PEM. `None`: none are asked for.
    pub client_ca: Option<PathBuf>,
}

/// What is spoken within TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// Why there is no TLS.
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
    /// The key can be read by others than its owner.
    #[error("the key {} can be read by others; run: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// A file has not what it should have.
    #[error("{} holds no {what} in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// Certificate and key do not fit together, or are of no use.
    #[error("the certificate, its key or the client CA cannot be used")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// TLS as it stands now.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    fingerprint: [u8; 32],
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = Contents::read(&files)?.parse(&files)?;
        Ok(Self { files, current: ArcSwap::from_pointee(loaded) })
    }

    /// Returns what the next connection that speaks this is to be served with.
    #[must_use]
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(match protocol {
            Protocol::Grpc => &current.grpc,
            Protocol::Http => &current.http,
        })
    }

    /// Reads the files again whenever they have changed, until the server stops it. What cannot be used is
    /// said, and what was in use before stays.
    pub async fn watch(self: Arc<Self>) {
        let mut refused = None;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let tls = Arc::clone(&self);
            let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await else { return };
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    refused = None;
                    tracing::info!("TLS certificate, key and client CA were read anew");
                }
                Err(error) => {
                    // Said once for each different reason, not every second.
                    let said = error.to_string();
                    if refused.as_ref() != Some(&said) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(
                            error,
                            "changed TLS files cannot be used; the earlier ones stay in use"
                        );
                    }
                    refused = Some(said);
                }
            }
        }
    }

    fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        if contents.fingerprint() == self.current.load().fingerprint {
            return Ok(false);
        }
        self.current.store(Arc::new(contents.parse(&self.files)?));
        Ok(true)
    }
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
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
        })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &*self.key, self.client_ca.as_ref().unwrap_or(&Vec::new())] {
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
        let builder = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate).map_err(unusable)?;
                }
                // Callers may also come with a secret, and no certificate.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(unusable)?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Loaded { grpc: Arc::new(config), http, fingerprint: self.fingerprint() })
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

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Unusable(Box::new(error))
}

/// What a verified client certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject alternative names (RFC 5280, 4.2.1.6): DNS names and URIs, SPIFFE ids among them.
    pub names: Vec<String>,
    /// Until when it is valid, inclusive.
    pub not_after: OffsetDateTime,
}

impl ClientCertificate {
    /// Reads a certificate that has been verified already; `None` when it cannot be read.
    #[must_use]
    pub fn parse(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()?.map(|extension| &extension.value.general_names);
        let names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        });
        Some(Self { names: names.collect(), not_after: parsed.validity().not_after.to_datetime() })
    }
}
