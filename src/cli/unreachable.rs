//! Why a tokend was not reached, with advice. Derived from the transport's error causes.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use tonic::ConnectError;

/// Returns what to do: which setting to correct, or what to start.
pub(super) fn advice(error: &(dyn Error + 'static), encrypted: bool) -> &'static str {
    if let Some(refusal) = find::<rustls::Error>(error) {
        return of_tls(refusal);
    }
    if find::<ConnectError>(error).is_none() && !encrypted {
        return "the server there did not answer like a tokend without TLS: if it has TLS, write https:// in \
             the address; if it is not a tokend, correct the host and port";
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there: start tokend, or correct the host and port of the address"
        }
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) if encrypted => {
            "the server there closed the connection: it may have no TLS (write http:// in the address), or \
             may require a client certificate"
        }
        Some(io::ErrorKind::TimedOut) => {
            "nothing answers there: correct the address, or check for a firewall"
        }
        _ => "check the address, and whether tokend is running",
    }
}

fn of_tls(refusal: &rustls::Error) -> &'static str {
    match refusal {
        rustls::Error::InvalidMessage(_) => {
            "the server there does not use TLS: if it is a tokend without TLS, write http:// in the address"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "no CA that is trusted here has signed its certificate: pass its CA with --ca or TOKEND_CA",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name: use a name from the certificate in the address",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired: give the server a new one",
        rustls::Error::InvalidCertificate(_) => "its certificate is not valid: give the server a new one",
        _ => "TLS was refused: the server may require a client certificate, or may not be a tokend",
    }
}

/// Finds a cause of this type, also one that an I/O error wraps.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An I/O error returns the source of the error that it wraps, not that error itself.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref()) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}
