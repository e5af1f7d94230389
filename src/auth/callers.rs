//! Authenticates the caller of a call from its metadata and connection. Called first by every RPC of the
//! service, and by every integration that has callers. The secret goes to the engine and nowhere else.

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

/// Why a call has no authenticated caller.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// The credential was not accepted, or could not be judged.
    #[error(transparent)]
    Credential(#[from] AuthenticateError),
    /// The address has tried too many credentials that were not accepted.
    #[error(transparent)]
    Throttled(#[from] Refused),
}

/// Authenticates callers by their secrets, or by the mappings of their client certificates.
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
    /// Returns whether these certificate mappings are in use.
    #[must_use]
    pub fn has_mappings(&self, certificates: &CertificateMappings) -> bool {
        **self.certificates.load() == *certificates
    }

    /// Replaces the certificate mappings from the next call on.
    pub fn replace_mappings(&self, certificates: CertificateMappings) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Authenticates the sender of a request: by its secret if it sends one, otherwise by its certificate.
    pub(crate) async fn authenticate<M>(
        &self,
        engine: &Engine,
        request: &Request<M>,
    ) -> Result<Credential, AuthenticateError> {
        let presented = bearer(request.metadata().as_ref());
        self.authenticate_presented(engine, presented, request.extensions().get::<Peer>()).await
    }

    /// Authenticates a peer that presents this secret as its credential, or none.
    pub(crate) async fn authenticate_presented(
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
            // Judged alone: a certificate never makes up for a bad header.
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

    /// Returns the secret that a request presents, proven or not.
    pub(crate) fn presented<M>(request: &Request<M>) -> Option<&str> {
        bearer(request.metadata().as_ref()).ok()
    }

    /// Authenticates the sender from a cache that is fresh at `read_point`; `None` when the cache
    /// cannot, or the credential is not good.
    pub(crate) fn try_authenticate(
        &self,
        engine: &Engine,
        headers: &HeaderMap,
        peer: &Peer,
        read_point: &ReadPoint,
    ) -> Option<Arc<Credential>> {
        match bearer(headers) {
            Ok(secret) => {
                engine.try_authenticate(secret, Some(peer.address.ip()), &peer.credentials, read_point)
            }
            Err(CredentialError::Missing) => {
                let certificate = peer.certificate.as_deref()?;
                self.holder(certificate).ok().map(Arc::new)
            }
            Err(_) => None,
        }
    }

    /// Delays the response to a failed authentication; `false` if it must be refused at once.
    pub(crate) async fn hold(&self, address: IpAddr) -> bool {
        self.throttle.hold(address).await
    }

    /// Counts a credential that was not accepted, and delays the response to a peer that sends many.
    pub(crate) async fn refuse(
        &self,
        error: AuthenticateError,
        peer: Option<&Peer>,
        metrics: &Metrics,
    ) -> Unauthenticated {
        let AuthenticateError::Credential(refusal) = error else { return error.into() };
        metrics.work.authentication_failed();
        // Only for a possible guess: other errors cost no query, or come from a caller with the
        // right secret.
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

/// Finds the only bearer credential (RFC 6750; the scheme is case-insensitive, RFC 9110).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, CredentialError> {
    access::bearer(headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes))
}
