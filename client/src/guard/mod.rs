//! A tower layer in front of any axum or tonic service: `Authorization: Bearer` in, a [`VerifiedToken`] in the
//! request's extensions, or a refusal in the words of HTTP or of gRPC out. Whatever cannot be found out is refused.

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
use crate::question::{Answer, Question, VerifiedToken};
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

/// The layer. Clones share what they ask, and what is configured.
#[derive(Clone)]
pub struct Guard {
    verifier: Verifier,
    config: Arc<Config>,
}

/// What is configured.
#[derive(Clone, Default)]
struct Config {
    rules: Rules,
    client_address: Option<Arc<ClientAddress>>,
    credential_stays: bool,
    http_alone: bool,
    on_refusal: Option<Arc<OnRefusal>>,
}

/// The credential that a guard has taken out of a request, for the guards behind it.
#[derive(Clone)]
struct Taken(Result<SecretString, CredentialError>);

impl Guard {
    /// Lets in whoever presents a token, whatever it may do.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, config: Arc::default() }
    }

    /// Requires these scopes, all of them, wherever nothing else is said.
    ///
    /// # Errors
    /// [`RuleError`]: one of them is no scope, or what holds elsewhere was said already.
    pub fn require<'a>(self, required: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let required = scopes(required)?;
        self.try_with(|config| config.rules.require(required))
    }

    /// Requires these scopes instead at one path exactly, such as `/v1/reports` or `/acme.v1.Reports/Get`, as the client
    /// sends it: also within a nested router the whole path. A request whose path is this one in another spelling, or
    /// that may be a part of it, has to have these scopes and those required elsewhere.
    ///
    /// # Errors
    /// [`RuleError`]: one of them is no scope, no request can have the path, or it has a rule already.
    pub fn require_at<'a>(
        self,
        path: impl Into<String>,
        required: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RuleError> {
        let required = scopes(required)?;
        self.try_with(|config| config.rules.insert(path.into(), Access::Requires(required)))
    }

    /// Lets everybody through at one path exactly: a health check.
    ///
    /// # Errors
    /// [`RuleError`]: no request can have the path, or it has a rule already.
    pub fn open_at(self, path: impl Into<String>) -> Result<Self, RuleError> {
        self.try_with(|config| config.rules.insert(path.into(), Access::Open))
    }

    /// Lets nobody through, whatever a token may do, wherever nothing else is said: a path that was forgotten is not
    /// open.
    #[must_use]
    pub fn closed_elsewhere(self) -> Self {
        self.with(|config| config.rules.close_elsewhere())
    }

    /// Says where requests come from, for tokens that are bound to networks; without it those are refused. From a
    /// header only if something that you run has set it.
    #[must_use]
    pub fn client_address(self, find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.with(|config| config.client_address = Some(Arc::new(find)))
    }

    /// Leaves the credential in the requests that are let through. Otherwise it is taken out, also where everybody is
    /// let through: whoever does not have it cannot log it. Guards behind this one know it all the same.
    #[must_use]
    pub fn leave_credential(self) -> Self {
        self.with(|config| config.credential_stays = true)
    }

    /// Refuses by an HTTP status whatever a request says that it is. Otherwise a POST of one of gRPC's content types to
    /// a path of two segments is refused in gRPC's words, which are HTTP's 200 to whoever does not read them: say this
    /// where no gRPC is served and a gateway or a probe goes by the status.
    #[must_use]
    pub fn http_only(self) -> Self {
        self.with(|config| config.http_alone = true)
    }

    /// Tells of every refusal before it is answered: to count it, or to log it. Without the credential, unless that is
    /// read from the request's headers, where it still is.
    #[must_use]
    pub fn on_refusal(self, tell: impl Fn(&Parts, &Refused<'_>) + Send + Sync + 'static) -> Self {
        self.with(|config| config.on_refusal = Some(Arc::new(tell)))
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

/// What a guarded service answers: its own body, or that of a refusal.
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
        // The one that is ready goes; its clone has to become ready first.
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
    /// Finds out whether a request may pass, and notes by whose token.
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
        let question = Question { secret, required_scopes: required, client_ip };
        let token = admitted(self.verifier.verify(&question).await)?;
        self.take_credential(parts);
        parts.extensions.insert(token);
        Ok(())
    }

    /// Takes the credential out of a request, unless it is to stay.
    fn take_credential(&self, parts: &mut Parts) {
        if self.config.credential_stays || !parts.headers.contains_key(AUTHORIZATION) {
            return;
        }
        let taken = in_headers(&parts.headers).map(SecretString::from);
        parts.extensions.insert(Taken(taken));
        parts.headers.remove(AUTHORIZATION);
    }

    fn refuse(&self, refusal: &Refusal, parts: &Parts) -> Response<Full<Bytes>> {
        if let Refusal::Unknown(error) = refusal {
            self.verifier
                .client()
                .outage()
                .note("tokend cannot be asked about requests, which are refused", error);
        }
        if let Some(tell) = &self.config.on_refusal {
            tell(parts, &refusal.told());
        }
        refusal.response(if self.config.http_alone { None } else { refusal::grpc(parts) })
    }
}

/// Returns the path that the client has sent, where that is known. axum's routers take off what they are nested at.
fn whole_path(parts: &Parts) -> Option<&str> {
    Some(parts.extensions.get::<axum::extract::OriginalUri>()?.path())
}

/// Finds the credential of a request: the one that it bears, else the one that a guard before this one took out of it.
fn presented(parts: &Parts) -> Result<&str, Refusal> {
    let found = match parts.extensions.get() {
        Some(Taken(taken)) if !parts.headers.contains_key(AUTHORIZATION) => {
            taken.as_ref().map(SecretString::expose_secret).map_err(|error| *error)
        }
        _ => in_headers(&parts.headers),
    };
    found.map_err(Refusal::Credential)
}

fn in_headers(headers: &HeaderMap) -> Result<&str, CredentialError> {
    bearer(headers.get_all(AUTHORIZATION).iter().map(http::HeaderValue::as_bytes))
}

fn admitted(outcome: Result<Answer, Error>) -> Result<VerifiedToken, Refusal> {
    match outcome.map_err(Refusal::Unknown)? {
        Answer { verdict: Verdict::Valid, token: Some(token), .. } => Ok(token),
        Answer { verdict, missing_scopes, .. } => Err(Refusal::Denied(verdict, missing_scopes)),
    }
}
