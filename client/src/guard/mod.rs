//! A tower layer for any axum or tonic service: takes `Authorization: Bearer`, and puts a
//! [`VerifiedToken`] into the request's extensions or responds with a refusal, by HTTP or gRPC. If
//! the verdict is not known, the request is refused.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::{Either, Full};
use secrecy::{ExposeSecret as _, SecretString};
use tokend_core::domain::access::bearer;
use tokend_core::domain::{CredentialError, Verdict};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::verification::{Verification, VerifiedToken, VerifyRequest};
use crate::verifier::Verifier;

mod refusal;
mod rules;
mod spelling;

use refusal::Refusal;
pub use refusal::Refused;
pub use rules::RuleError;
use rules::{Access, Rules, scopes};

type OnRefusal = dyn Fn(&Parts, &Refused<'_>) + Send + Sync;
type ClientAddress = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

/// The layer. Clones share the verifier and the configuration.
#[derive(Clone)]
pub struct Guard {
    verifier: Verifier,
    config: Arc<Config>,
}

/// The configuration of a guard.
#[derive(Clone, Default)]
struct Config {
    rules: Rules,
    client_address: Option<Arc<ClientAddress>>,
    credential_stays: bool,
    http_alone: bool,
    on_refusal: Option<Arc<OnRefusal>>,
}

/// The credential that a guard has removed from a request, for guards behind it.
#[derive(Clone)]
struct RemovedCredential(Result<SecretString, CredentialError>);

impl Guard {
    /// Admits every request with a valid token, with any scopes.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, config: Arc::default() }
    }

    /// Requires all of these scopes at every path without a rule.
    ///
    /// # Errors
    /// [`RuleError`]: one of them is not a scope, or the rule for other paths is already set.
    pub fn require<'a>(self, required: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let required = scopes(required)?;
        self.try_with(|config| config.rules.require(required))
    }

    /// Requires these scopes instead at exactly one path, such as `/v1/reports` or `/acme.v1.Reports/Get`,
    /// as the client sends it: the whole path, even within a nested router. A request whose path is another
    /// spelling of this one, or may be a part of it, needs these scopes and those required elsewhere.
    ///
    /// # Errors
    /// [`RuleError`]: one of them is not a scope, no request can have the path, or it already has a rule.
    pub fn require_at<'a>(
        self,
        path: impl Into<String>,
        required: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RuleError> {
        let required = scopes(required)?;
        self.try_with(|config| config.rules.insert(path.into(), Access::Requires(required)))
    }

    /// Admits every request at exactly one path, such as a health check.
    ///
    /// # Errors
    /// [`RuleError`]: no request can have the path, or it already has a rule.
    pub fn open_at(self, path: impl Into<String>) -> Result<Self, RuleError> {
        self.try_with(|config| config.rules.insert(path.into(), Access::Open))
    }

    /// Refuses every request at paths without a rule, regardless of the token's scopes, so that a
    /// forgotten path is not open.
    #[must_use]
    pub fn closed_elsewhere(self) -> Self {
        self.with(|config| config.rules.close_elsewhere())
    }

    /// Sets how to find the client's address, for tokens with allowed networks, which are otherwise
    /// refused. Use a header only if your own proxy sets it.
    #[must_use]
    pub fn client_address(self, find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.with(|config| config.client_address = Some(Arc::new(find)))
    }

    /// Leaves the credential in admitted requests. By default it is removed, even where every request
    /// is admitted, so that the service cannot log it. Guards behind this one still know it.
    #[must_use]
    pub fn leave_credential(self) -> Self {
        self.with(|config| config.credential_stays = true)
    }

    /// Always refuses with an HTTP status, even if the request claims to be gRPC. By default a POST of
    /// a gRPC content type to a path of two segments is refused by gRPC, which is HTTP status 200 to
    /// clients that do not read gRPC: use this where no gRPC is served and a gateway or a probe relies
    /// on the status.
    #[must_use]
    pub fn http_only(self) -> Self {
        self.with(|config| config.http_alone = true)
    }

    /// Calls `callback` for every refusal before the response, to count or log it. Without the
    /// credential, unless `callback` reads the request's headers, where it still is.
    #[must_use]
    pub fn on_refusal(self, callback: impl Fn(&Parts, &Refused<'_>) + Send + Sync + 'static) -> Self {
        self.with(|config| config.on_refusal = Some(Arc::new(callback)))
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    fn try_with(
        mut self,
        change: impl FnOnce(&mut Config) -> Result<(), RuleError>,
    ) -> Result<Self, RuleError> {
        change(Arc::make_mut(&mut self.config))?;
        Ok(self)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("rules", &self.config.rules).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// The response body of a guarded service: its own, or that of a refusal.
pub type GuardedBody<R> = Either<R, Full<Bytes>>;

/// A service behind a [`Guard`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<GuardedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The ready service takes the call; its clone has to become ready first.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let guard = self.guard.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match guard.admit(&mut parts).await {
                Ok(()) => Ok(inner.call(Request::from_parts(parts, body)).await?.map(Either::Left)),
                Err(refusal) => Ok(guard.refuse(&refusal, &parts).map(Either::Right)),
            }
        })
    }
}

impl Guard {
    /// Decides whether a request is admitted, and records its token.
    async fn admit(&self, parts: &mut Parts) -> Result<(), Refusal> {
        let access = self.config.rules.access(parts.uri.path(), whole_path(parts));
        let required = match &*access {
            Access::Requires(scopes) => scopes,
            Access::Open => {
                self.take_credential(parts);
                return Ok(());
            }
            Access::Closed => return Err(Refusal::Closed),
        };
        let secret = presented(parts)?;
        let client_ip = self.config.client_address.as_ref().and_then(|find| find(parts));
        let request = VerifyRequest::new(secret).required_scopes(required).client_ip(client_ip);
        let token = admitted(self.verifier.verify(&request).await)?;
        self.take_credential(parts);
        parts.extensions.insert(token);
        Ok(())
    }

    /// Removes the credential from a request, unless it is to stay.
    fn take_credential(&self, parts: &mut Parts) {
        if self.config.credential_stays || !parts.headers.contains_key(AUTHORIZATION) {
            return;
        }
        let removed = in_headers(&parts.headers).map(SecretString::from);
        parts.extensions.insert(RemovedCredential(removed));
        parts.headers.remove(AUTHORIZATION);
    }

    fn refuse(&self, refusal: &Refusal, parts: &Parts) -> Response<Full<Bytes>> {
        if let Refusal::Unknown(error) = refusal {
            self.verifier
                .client()
                .outage()
                .note("tokend returns no verdicts, so requests are refused", error);
        }
        if let Some(callback) = &self.config.on_refusal {
            callback(parts, &refusal.to_refused());
        }
        refusal.response(if self.config.http_alone { None } else { refusal::grpc(parts) })
    }
}

/// Returns the path that the client sent, if known. axum's nested routers remove their prefix.
fn whole_path(parts: &Parts) -> Option<&str> {
    Some(parts.extensions.get::<axum::extract::OriginalUri>()?.path())
}

/// Finds the credential of a request: its own, otherwise the one that an earlier guard removed from it.
fn presented(parts: &Parts) -> Result<&str, Refusal> {
    let found = match parts.extensions.get() {
        Some(RemovedCredential(removed)) if !parts.headers.contains_key(AUTHORIZATION) => {
            removed.as_ref().map(SecretString::expose_secret).map_err(|error| *error)
        }
        _ => in_headers(&parts.headers),
    };
    found.map_err(Refusal::Credential)
}

fn in_headers(headers: &HeaderMap) -> Result<&str, CredentialError> {
    bearer(headers.get_all(AUTHORIZATION).iter().map(http::HeaderValue::as_bytes))
}

fn admitted(outcome: Result<Verification, Error>) -> Result<VerifiedToken, Refusal> {
    match outcome.map_err(Refusal::Unknown)? {
        Verification { verdict: Verdict::Valid, token: Some(token), .. } => Ok(token),
        Verification { verdict, missing_scopes, retry_after, .. } => {
            Err(Refusal::Denied(verdict, missing_scopes, retry_after))
        }
    }
}
