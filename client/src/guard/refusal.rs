//! Why a request is refused, and the response by HTTP (RFC 6750, 3.1) or gRPC, as the request was.
//! Repeats nothing that was presented, and does not say why tokend could not be asked.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::Full;
use tokend_core::domain::access::Denial;
use tokend_core::domain::access::denial::{DenialKind, plain};
use tokend_core::domain::{CredentialError, Scope, Verdict};

use crate::error::Error;

/// gRPC's codes.
const PERMISSION_DENIED: &str = "7";
const RESOURCE_EXHAUSTED: &str = "8";
const UNAVAILABLE: &str = "14";
const UNAUTHENTICATED: &str = "16";

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no credential, or a malformed one.
    Credential(CredentialError),
    /// The credential is not sufficient; with the time after which it may be.
    Denied(Verdict, Vec<Scope>, Option<Duration>),
    /// No request is admitted here.
    Closed,
    /// The verdict is not known.
    Unknown(Error),
}

/// Why a guard refuses a request, as passed to [`Guard::on_refusal`](super::Guard::on_refusal).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Refused<'a> {
    /// There is no credential, or a malformed one.
    Credential,
    /// The credential is not sufficient: never [`Verdict::Valid`].
    Verdict(Verdict),
    /// No request is admitted here.
    Closed,
    /// The verdict is not known.
    Unknown(&'a Error),
}

/// The parts of a refusal's response.
struct ResponseParts {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    challenge: Option<String>,
    body: String,
}

impl Refusal {
    /// Returns the public part of a refusal.
    pub(super) fn to_refused(&self) -> Refused<'_> {
        match self {
            Self::Credential(_) => Refused::Credential,
            Self::Denied(verdict, ..) => Refused::Verdict(*verdict),
            Self::Closed => Refused::Closed,
            Self::Unknown(error) => Refused::Unknown(error),
        }
    }

    /// Builds the response: by gRPC with this content type, otherwise by HTTP.
    pub(super) fn response(&self, grpc: Option<&'static str>) -> Response<Full<Bytes>> {
        let parts = self.parts();
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let challenge = parts.challenge.and_then(|text| HeaderValue::try_from(text).ok());
        headers.extend(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        if let Some(content_type) = grpc {
            // Trailers only, which are sent as headers.
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(parts.code));
            headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(parts.message));
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        *response.status_mut() = parts.status;
        *response.body_mut() = Full::from(parts.body);
        response
    }

    /// Returns the seconds after which a repeat may be admitted, rounded up.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Unknown(_) => Some(1),
            Self::Denied(_, _, after) => {
                after.map(|time| time.as_secs().saturating_add((time.subsec_nanos() > 0).into()).max(1))
            }
            Self::Credential(_) | Self::Closed => None,
        }
    }

    fn parts(&self) -> ResponseParts {
        let denied = |denial: Denial, message| {
            let (status, code) = match denial.kind {
                DenialKind::Unauthenticated => (StatusCode::UNAUTHORIZED, UNAUTHENTICATED),
                DenialKind::Forbidden => (StatusCode::FORBIDDEN, PERMISSION_DENIED),
                DenialKind::Limited => (StatusCode::TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED),
            };
            ResponseParts { status, code, message, challenge: denial.challenge, body: denial.body }
        };
        match self {
            Self::Credential(error) => {
                let message = match error {
                    CredentialError::Missing => "no credential was given",
                    _ => "the credential is not valid",
                };
                denied(Denial::of_credential(*error), message)
            }
            Self::Denied(verdict, missing, _) => {
                let message = match verdict {
                    Verdict::MissingScope => "the credential lacks a scope",
                    Verdict::IpNotAllowed => "the credential may not be used from this address",
                    Verdict::RateLimited | Verdict::CreditsExhausted => {
                        "a limit of the credential is used up"
                    }
                    _ => "the credential is not valid",
                };
                denied(Denial::of_verdict(*verdict, missing), message)
            }
            Self::Closed => ResponseParts {
                status: StatusCode::FORBIDDEN,
                code: PERMISSION_DENIED,
                message: "nobody may do this",
                challenge: None,
                body: plain("access_denied"),
            },
            Self::Unknown(_) => ResponseParts {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: UNAVAILABLE,
                message: "the credential cannot be checked now",
                challenge: None,
                body: plain("temporarily_unavailable"),
            },
        }
    }
}

/// The content types of gRPC, which needs HTTP/2, and of gRPC-Web.
const NATIVE: [&str; 2] = ["application/grpc", "application/grpc+proto"];
const WEB: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// Returns the content type of a gRPC or gRPC-Web request. Only exact matches: a refusal by gRPC
/// has HTTP status 200, which a client must not get by a similar content type.
pub(super) fn grpc(request: &Parts) -> Option<&'static str> {
    let mut segments = request.uri.path().strip_prefix('/')?.split('/');
    let method = [segments.next()?, segments.next()?];
    let named = segments.next().is_none() && method.iter().all(|name| !name.is_empty());
    let mut types = request.headers.get_all(CONTENT_TYPE).iter();
    let content_type = types.next()?;
    if request.method != Method::POST || !named || types.next().is_some() {
        return None;
    }
    let known = |types: &'static [&'static str]| types.iter().copied().find(|known| content_type == *known);
    known(&WEB).or_else(|| known(&NATIVE).filter(|_| request.version == Version::HTTP_2))
}
