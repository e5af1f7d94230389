//! From a call's metadata and connection to an authenticated caller. Every RPC of the service begins here, and so
//! does every way in that knows its callers. The secret goes to the engine and nowhere else.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::Request;
use tonic::codegen::http::{HeaderMap, HeaderValue, header};

use super::peer::Peer;
use super::throttle::FailedAuthThrottle;
use crate::admission::fair_limiter::Refused;
use crate::clock;
use crate::domain::{Caller, CertificateMappings, CredentialError, access};
use crate::metrics::Metrics;
use crate::transport::tls::ClientCertificate;
use crate::verify::{AuthenticateError, Credential, Engine, ReadPoint};

/// Why a call has no caller.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Its credential was not accepted, or could not be judged.
    #[error(transparent)]
    Credential(#[from] AuthenticateError),
    /// Its address has tried too many credentials that were not accepted.
    #[error(transparent)]
    Throttled(#[from] Refused),
}

/// Knows who calls: by their secrets, or by what their certificates are mapped to.
#[derive(Debug)]
pub struct Callers {
    certificates: ArcSwap<CertificateMappings>,
    throttle: FailedAuthThrottle,
}

impl From<CertificateMappings> for Callers {
    fn from(certificates: CertificateMappings) -> Self {
        Self { certificates: ArcSwap::from_pointee(certificates), throttle: FailedAuthThrottle::new() }
    }
}

impl Callers {
    /// Tells whether certificates are mapped so.
    #[must_use]
    pub fn has_mappings(&self, certificates: &CertificateMappings) -> bool {
        **self.certificates.load() == *certificates
    }

    /// Has certificates mean something else from the next call on.
    pub fn replace_mappings(&self, certificates: CertificateMappings) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Authenticates whoever sent this request: by its secret if it brings one, else by its certificate.
    pub(crate) async fn authenticate<M>(
        &self,
        engine: &Engine,
        request: &Request<M>,
    ) -> Result<Credential, AuthenticateError> {
        let presented = bearer(request.metadata().as_ref());
        self.recognise(engine, presented, request.extensions().get::<Peer>()).await
    }

    /// Authenticates a peer that presents this secret as its credential, or none.
    pub(crate) async fn recognise(
        &self,
        engine: &Engine,
        presented: Result<&str, CredentialError>,
        peer: Option<&Peer>,
    ) -> Result<Credential, AuthenticateError> {
        match presented {
            Err(CredentialError::Missing) => match peer.and_then(|peer| peer.certificate.as_deref()) {
                Some(certificate) => Ok(self.holder(certificate)?),
                None => Err(CredentialError::Missing.into()),
            },
            // Judged alone: a certificate never rescues a bad header.
            Err(error) => Err(error.into()),
            Ok(secret) => {
                let credential = engine.authenticate(secret, peer.map(|peer| peer.address.ip())).await?;
                if let Some(peer) = peer {
                    peer.credentials.note();
                }
                Ok(credential)
            }
        }
    }

    /// Returns what a request presents as its secret, proven or not.
    pub(crate) fn presented<M>(request: &Request<M>) -> Option<&str> {
        bearer(request.metadata().as_ref()).ok()
    }

    /// Does the same from a cache that is fresh at `present`; `None` when that cannot tell, or the credential is
    /// not good.
    pub(crate) fn try_authenticate(
        &self,
        engine: &Engine,
        headers: &HeaderMap,
        peer: &Peer,
        present: &ReadPoint,
    ) -> Option<Arc<Credential>> {
        match bearer(headers) {
            Ok(secret) => {
                engine.try_authenticate(secret, Some(peer.address.ip()), &peer.credentials, present)
            }
            Err(CredentialError::Missing) => {
                let certificate = peer.certificate.as_deref()?;
                self.holder(certificate).ok().map(Arc::new)
            }
            Err(_) => None,
        }
    }

    /// Holds back the answer to a failed authentication; `false` when it is to be refused without more ado.
    pub(crate) async fn hold(&self, address: IpAddr) -> bool {
        self.throttle.hold(address).await
    }

    /// Counts a credential that was not accepted, and holds the answer back from who sends many.
    pub(crate) async fn refuse(
        &self,
        error: AuthenticateError,
        peer: Option<&Peer>,
        metrics: &Metrics,
    ) -> Unauthenticated {
        let AuthenticateError::Credential(refusal) = error else { return error.into() };
        metrics.work.authentication_failed();
        // Only what looks like a guess: the others have cost no query, or have proven their secret.
        match peer {
            Some(peer) if refusal == CredentialError::Invalid => {
                if self.hold(peer.address.ip()).await {
                    error.into()
                } else {
                    Refused::Full.into()
                }
            }
            _ => error.into(),
        }
    }

    fn holder(&self, certificate: &ClientCertificate) -> Result<Credential, CredentialError> {
        let (names, not_after) = (&certificate.names, certificate.not_after);
        let caller: Caller = self.certificates.load().caller(names, not_after, clock::now())?;
        Ok(Credential::of_certificate(caller, not_after))
    }
}

/// Finds the one bearer credential (RFC 6750; the scheme's case does not matter, RFC 9110).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, CredentialError> {
    access::bearer(headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes))
}
