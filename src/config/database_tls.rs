//! The TLS verification of a database connection and its files, as in libpq, except that settings
//! that would verify nothing are refused. Used by `database_url`. The files are read here once, so
//! that a missing one is refused at the start; the driver reads them again for each connection.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::private_file::is_exposed;

/// The values of `sslmode`.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The value of `sslrootcert` for the CAs that this machine trusts.
const SYSTEM: &str = "system";

/// The variable that names a file of CAs to use in place of those, as OpenSSL and so libpq read it.
pub(super) const SYSTEM_VARIABLE: &str = "SSL_CERT_FILE";

/// Where systems keep the CAs that they trust, in one file.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where libpq looks for a CA if none is named, relative to the home directory.
const HOME_ROOT: &str = ".postgresql/root.crt";

// sqlx trusts these in addition to the CA that it is given: with `verify-ca`, any server that one
// of them has certified.
const _: () = assert!(
    webpki_roots::TLS_SERVER_ROOTS.is_empty(),
    "built without the patch of webpki-roots in Cargo.toml, which keeps the driver from trusting every public authority"
);

/// Far larger than any CA bundle.
const MAX_BYTES: u64 = 4 << 20;

/// Why TLS to the database would verify less than intended, or cannot start.
#[derive(Debug, Error)]
pub enum TlsFilesProblem {
    /// Not one of the modes.
    #[error("sslmode is invalid: expected disable, allow, prefer, require, verify-ca or verify-full")]
    Mode,
    /// A CA is named, but nothing would be verified against it.
    #[error("sslrootcert has no effect with sslmode={0}: set sslmode=verify-full")]
    RootUnused(&'static str),
    /// A certificate of any public CA for any name would be accepted.
    #[error("sslrootcert=system needs sslmode=verify-full: a public CA also certifies every other host")]
    SystemUnchecked,
    /// This machine has no CA bundle.
    #[error(
        "this machine has no CA certificates to verify against: install ca-certificates, or name the CA of \
         the server with sslrootcert"
    )]
    NoSystemRoots,
    /// There is no CA to verify against.
    #[error("sslmode=verify-ca needs sslrootcert, the CA of the server's certificate")]
    NoRoot,
    /// A file cannot be read.
    #[error("the file of {name} cannot be read: {source}")]
    Unreadable {
        /// The parameter.
        name: &'static str,
        /// Why; part of the message, since it names the cause and not the file.
        source: io::Error,
    },
    /// A file lacks its expected content.
    #[error("the file of {name} contains no {what} in PEM")]
    Empty {
        /// The parameter.
        name: &'static str,
        /// The expected content.
        what: &'static str,
    },
    /// Other users than its owner can read the key.
    #[error("the file of sslkey can be read by others: run chmod 600 on it")]
    Exposed,
    /// A certificate without a key, or the reverse.
    #[error("sslcert and sslkey belong together: set both or neither")]
    HalfIdentity,
}

/// The TLS parameters as given.
pub(super) struct TlsParameters {
    pub(super) mode: Option<String>,
    pub(super) root: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) home: Option<String>,
    /// The value of [`SYSTEM_VARIABLE`].
    pub(super) system: Option<String>,
}

/// The TLS parameters for the driver.
pub(super) struct ResolvedTls {
    pub(super) mode: &'static str,
    pub(super) root: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

impl TlsParameters {
    /// Returns whether the server's certificate is checked for its name.
    pub(super) fn checks_host(&self) -> bool {
        self.mode.as_deref() == Some("verify-full") || self.root.as_deref() == Some(SYSTEM)
    }

    /// Returns the parameters for a Unix socket: never TLS, since Postgres does not support it there.
    pub(super) fn on_a_socket(&self) -> Result<ResolvedTls, TlsFilesProblem> {
        self.mode()?;
        Ok(ResolvedTls { mode: "disable", root: None, certificate: None, key: None })
    }

    /// Decides what is verified, and reads the files.
    pub(super) fn resolve(self) -> Result<ResolvedTls, TlsFilesProblem> {
        let (mode, root) = self.verification()?;
        if let Some(path) = &root {
            let name = if root == self.system { SYSTEM_VARIABLE } else { "sslrootcert" };
            certificates(name, path)?;
        }
        match (&self.certificate, &self.key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                certificates("sslcert", certificate)?;
                private_key(key)?;
            }
            _ => return Err(TlsFilesProblem::HalfIdentity),
        }
        Ok(ResolvedTls { mode, root, certificate: self.certificate, key: self.key })
    }

    fn mode(&self) -> Result<Option<&'static str>, TlsFilesProblem> {
        let Some(mode) = &self.mode else { return Ok(None) };
        MODES.into_iter().find(|known| known == mode).map(Some).ok_or(TlsFilesProblem::Mode)
    }

    fn verification(&self) -> Result<(&'static str, Option<String>), TlsFilesProblem> {
        let mode = self.mode()?;
        if self.root.as_deref() == Some(SYSTEM) {
            return match mode {
                None | Some("verify-full") => Ok(("verify-full", Some(self.system_roots()?))),
                Some(_) => Err(TlsFilesProblem::SystemUnchecked),
            };
        }
        let root = self.root.clone();
        match (mode.unwrap_or("prefer"), root) {
            (mode @ ("disable" | "allow" | "prefer"), Some(_)) => Err(TlsFilesProblem::RootUnused(mode)),
            // The driver cannot try without TLS first.
            ("allow", None) => Ok(("prefer", None)),
            (mode @ ("disable" | "prefer"), None) => Ok((mode, None)),
            ("require", root) => match root.or_else(|| self.home_root()) {
                // As libpq does.
                Some(root) => Ok(("verify-ca", Some(root))),
                None => Ok(("require", None)),
            },
            ("verify-ca", root) => root
                .or_else(|| self.home_root())
                .map(|root| ("verify-ca", Some(root)))
                .ok_or(TlsFilesProblem::NoRoot),
            (_, root) => match root.or_else(|| self.home_root()) {
                Some(root) => Ok(("verify-full", Some(root))),
                None => Ok(("verify-full", Some(self.system_roots()?))),
            },
        }
    }

    fn home_root(&self) -> Option<String> {
        let path = Path::new(self.home.as_deref()?).join(HOME_ROOT);
        path.is_file().then(|| path.to_string_lossy().into_owned())
    }

    fn system_roots(&self) -> Result<String, TlsFilesProblem> {
        let found = || SYSTEM_ROOTS.into_iter().find(|path| Path::new(path).is_file()).map(ToOwned::to_owned);
        self.system.clone().or_else(found).ok_or(TlsFilesProblem::NoSystemRoots)
    }
}

fn certificates(name: &'static str, path: &str) -> Result<(), TlsFilesProblem> {
    let pem = read(name, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err(TlsFilesProblem::Empty { name, what: "certificate" }),
    }
}

fn private_key(path: &str) -> Result<(), TlsFilesProblem> {
    let unreadable = |source| TlsFilesProblem::Unreadable { name: "sslkey", source };
    if is_exposed(&fs::metadata(path).map_err(unreadable)?) {
        return Err(TlsFilesProblem::Exposed);
    }
    let pem = read("sslkey", path)?;
    let found = PrivateKeyDer::from_pem_slice(&pem);
    found.map(drop).map_err(|_| TlsFilesProblem::Empty { name: "sslkey", what: "private key" })
}

fn read(name: &'static str, path: &str) -> Result<Zeroizing<Vec<u8>>, TlsFilesProblem> {
    let unreadable = |source| TlsFilesProblem::Unreadable { name, source };
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).map_err(unreadable)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
