//! A tower layer in front of any axum or tonic service: `Authorization: Bearer` in, a [`VerifiedToken`] in the
//! request's extensions, or a refusal in the words of HTTP or of gRPC out. Whatever cannot be found out is refused.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::{Either, Full};
use tokend_core::domain::access::bearer;
use tokend_core::domain::{FieldError, Scope, Scopes, Verdict};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::question::{Answer, Question, VerifiedToken};
use crate::verifier::Verifier;

mod refusal;

use refusal::Refusal;

type ClientAddress = dyn Fn(&http::request::Parts) -> Option<IpAddr> + Send + Sync;

/// The layer. Clones share what they ask, and what is configured.
#[derive(Clone)]
pub struct Guard {
    verifier: Verifier,
    rules: Arc<Rules>,
}

/// What is required where.
#[derive(Clone, Default)]
struct Rules {
    /// Where no path says otherwise.
    elsewhere: Path,
    paths: HashMap<String, Path>,
    client_address: Option<Arc<ClientAddress>>,
    credential_stays: bool,
}

/// Who may pass.
#[derive(Debug, Clone)]
enum Path {
    Requires(Scopes),
    Open,
    Closed,
}

impl Default for Path {
    fn default() -> Self {
        Self::Requires(Scopes::default())
    }
}

impl Guard {
    /// Lets in whoever presents a token, whatever it may do.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, rules: Arc::default() }
    }

    /// Requires these scopes, all of them, wherever nothing else is said.
    ///
    /// # Errors
    /// One of them is no scope.
    pub fn require<'a>(self, scopes: impl IntoIterator<Item = &'a str>) -> Result<Self, FieldError> {
        let required = parse(scopes)?;
        Ok(self.with(|rules| rules.elsewhere = Path::Requires(required)))
    }

    /// Requires these scopes instead at one path exactly, such as `/v1/reports` or `/acme.v1.Reports/Get`, as it stands
    /// in the request. axum and tonic route by that, too; where something behind the guard decodes or shortens paths by
    /// itself, require the same of all of them by [`Self::require`].
    ///
    /// # Errors
    /// One of them is no scope.
    pub fn require_at<'a>(
        self,
        path: impl Into<String>,
        scopes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FieldError> {
        let required = parse(scopes)?;
        Ok(self.with(|rules| {
            rules.paths.insert(path.into(), Path::Requires(required));
        }))
    }

    /// Lets everybody through at one path exactly: a health check.
    #[must_use]
    pub fn open_at(self, path: impl Into<String>) -> Self {
        self.with(|rules| {
            rules.paths.insert(path.into(), Path::Open);
        })
    }

    /// Lets nobody through, whatever a token may do, wherever nothing else is said: a path that was forgotten is not
    /// open.
    #[must_use]
    pub fn closed_elsewhere(self) -> Self {
        self.with(|rules| rules.elsewhere = Path::Closed)
    }

    /// Says where requests come from, for tokens that are bound to networks; without it those are refused. From a
    /// header only if something that you run has set it.
    #[must_use]
    pub fn client_address(
        self,
        find: impl Fn(&http::request::Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|rules| rules.client_address = Some(Arc::new(find)))
    }

    /// Leaves the credential in the requests that are let through. Otherwise it is taken out: whoever does not have
    /// it cannot log it.
    #[must_use]
    pub fn leave_credential(self) -> Self {
        self.with(|rules| rules.credential_stays = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("elsewhere", &self.rules.elsewhere).finish_non_exhaustive()
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
                Err(refusal) => Ok(refusal.response(&parts.headers).map(Either::Right)),
            }
        })
    }
}

impl Guard {
    /// Finds out whether a request may pass, and notes by whose token.
    async fn admit(&self, parts: &mut http::request::Parts) -> Result<(), Refusal> {
        let required = match self.rules.paths.get(parts.uri.path()).unwrap_or(&self.rules.elsewhere) {
            Path::Requires(scopes) => scopes,
            Path::Open => return Ok(()),
            Path::Closed => return Err(Refusal::Closed),
        };
        let secret = presented(&parts.headers)?;
        let client_ip = self.rules.client_address.as_ref().and_then(|find| find(parts));
        let question = Question { secret, required_scopes: required, client_ip };
        let token = admitted(self.verifier.verify(&question).await)?;
        if !self.rules.credential_stays {
            parts.headers.remove(AUTHORIZATION);
        }
        parts.extensions.insert(token);
        Ok(())
    }
}

fn parse<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Result<Scopes, FieldError> {
    Scopes::new(scopes.into_iter().map(Scope::parse).collect::<Result<_, _>>()?)
}

fn presented(headers: &HeaderMap) -> Result<&str, Refusal> {
    bearer(headers.get_all(AUTHORIZATION).iter().map(http::HeaderValue::as_bytes))
        .map_err(Refusal::Credential)
}

fn admitted(outcome: Result<Answer, Error>) -> Result<VerifiedToken, Refusal> {
    match outcome.map_err(Refusal::Unknown)? {
        Answer { verdict: Verdict::Valid, token: Some(token), .. } => Ok(token),
        Answer { verdict, missing_scopes, .. } => Err(Refusal::Denied(verdict, missing_scopes)),
    }
}
