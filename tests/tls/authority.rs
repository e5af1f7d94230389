//! A certificate authority of the tests, what it signs, and the certificate files of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokend::clock;
use tokend::transport::tls::{ServerTls, TlsFiles};
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
    serial: SerialNumber,
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
        params.not_before = clock::now() - Duration::hours(1);
        params.not_after = clock::now() + end;
        let serial = SerialNumber::from_slice(&clock::random_uuid().as_bytes()[1..]);
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem(), serial }
    }

    /// Signs a revocation list that is valid until `end` from now.
    pub(crate) fn revocations(&self, revoked: &[&Signed], end: Duration) -> String {
        let this_update = clock::now() - Duration::hours(1);
        let revoked = revoked.iter().map(|signed| RevokedCertParams {
            serial_number: signed.serial.clone(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update,
            next_update: clock::now() + end,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Signs a certificate that is valid for an hour.
    pub(crate) fn good(&self, names: &[&str]) -> Signed {
        self.sign(names, Duration::hours(1))
    }
}

/// Reads a name with its type before a colon; without a type it is a host name.
fn san(name: &str) -> SanType {
    match name.split_once(':') {
        Some(("uri", name)) => SanType::URI(name.try_into().unwrap()),
        Some(("email", name)) => SanType::Rfc822Name(name.try_into().unwrap()),
        Some(("ip", name)) => SanType::IpAddress(name.parse().unwrap()),
        Some(("dns", name)) => SanType::DnsName(name.try_into().unwrap()),
        _ => SanType::DnsName(name.try_into().unwrap()),
    }
}

/// A directory with the certificate files of a server.
pub(crate) struct Files {
    directory: TempDir,
    client_ca: bool,
    client_crl: bool,
}

impl Files {
    pub(crate) fn new(signed: &Signed, client_ca: Option<&Authority>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(authority) = client_ca {
            fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        }
        let files = Self { directory, client_ca: client_ca.is_some(), client_crl: false };
        files.replace(signed);
        files
    }

    /// Adds a certificate revocation list.
    pub(crate) fn with_revocations(mut self, list: &str) -> Self {
        fs::write(self.path("crl.pem"), list).unwrap();
        self.client_crl = true;
        self
    }

    /// Replaces the certificate and its key.
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
            client_crl: self.client_crl.then(|| self.path("crl.pem")),
        }
    }

    pub(crate) fn load(&self) -> Arc<ServerTls> {
        Arc::new(ServerTls::load(self.files()).unwrap())
    }
}

/// Returns a channel that trusts this CA and presents this certificate.
pub(crate) fn channel(replica: &Replica, authority: &Authority, identity: Option<&Signed>) -> Channel {
    let mut tls =
        ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(&authority.pem));
    if let Some(signed) = identity {
        tls = tls.identity(Identity::from_pem(&signed.certificate, &signed.key));
    }
    let address = format!("https://127.0.0.1:{}", replica.address.port());
    Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect_lazy()
}

/// Returns the `end` of a certificate that expired a minute ago.
pub(crate) fn ended() -> Duration {
    Duration::minutes(-1)
}

/// Returns the wall clock's time, for tests that wait for a certificate's expiration.
pub(crate) fn now() -> OffsetDateTime {
    clock::now()
}
