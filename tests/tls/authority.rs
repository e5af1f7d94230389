//! A certificate authority of the tests, what it signs, and files for a server to read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokend::ambient;
use tokend::tls::{ServerTls, TlsFiles};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::replica::Replica;

/// A CA.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for these names, valid from an hour ago until `end` from now.
    pub(crate) fn sign(&self, names: &[&str], end: Duration) -> Signed {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.not_before = ambient::now() - Duration::hours(1);
        params.not_after = ambient::now() + end;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// Signs one that is good for an hour.
    pub(crate) fn good(&self, names: &[&str]) -> Signed {
        self.sign(names, Duration::hours(1))
    }
}

fn san(name: &str) -> SanType {
    if name.contains("://") {
        SanType::URI(name.try_into().unwrap())
    } else {
        SanType::DnsName(name.try_into().unwrap())
    }
}

/// A directory with the files of a server.
pub(crate) struct Files {
    directory: TempDir,
    client_ca: bool,
}

impl Files {
    pub(crate) fn new(signed: &Signed, client_ca: Option<&Authority>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(authority) = client_ca {
            fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        }
        let files = Self { directory, client_ca: client_ca.is_some() };
        files.replace(signed);
        files
    }

    /// Puts another certificate in place.
    pub(crate) fn replace(&self, signed: &Signed) {
        fs::write(self.path("key.pem"), &signed.key).unwrap();
        fs::set_permissions(self.path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.path("certificate.pem"), &signed.certificate).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::join(self.directory.path(), name)
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("certificate.pem"),
            key: self.path("key.pem"),
            client_ca: self.client_ca.then(|| self.path("ca.pem")),
        }
    }

    pub(crate) fn load(&self) -> Arc<ServerTls> {
        Arc::new(ServerTls::load(self.files()).unwrap())
    }
}

/// Opens a connection that trusts this CA and presents this certificate.
pub(crate) fn channel(replica: &Replica, authority: &Authority, identity: Option<&Signed>) -> Channel {
    let mut tls =
        ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(&authority.pem));
    if let Some(signed) = identity {
        tls = tls.identity(Identity::from_pem(&signed.certificate, &signed.key));
    }
    let address = format!("https://127.0.0.1:{}", replica.address.port());
    Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect_lazy()
}

/// Returns the end of a certificate that ended a minute ago.
pub(crate) fn ended() -> Duration {
    Duration::minutes(-1)
}

/// Returns the wall clock's time, as a handle for tests that wait for a certificate's end.
pub(crate) fn now() -> OffsetDateTime {
    ambient::now()
}
