//! A call from its credential to its log line: caller, trace, duration and metrics. Called by every
//! RPC. Knows nothing of what they do.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tonic::codegen::http::{HeaderMap, HeaderName};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument as _, Span, field};

use super::reserved_body::ResponseReservation;
use super::reuse_detection::ReuseDetection;
use super::token_api::TokenApi;
use crate::api::error::CallError;
use crate::api::status;
use crate::auth::peer::Peer;
use crate::domain::audit_context::{self, Acting, ActingUser, AuditContext};
use crate::domain::size::LARGEST_TOKEN;
use crate::domain::{FieldError, Permission, Violations};
use crate::metrics::Rpc;
use crate::runtime::{deadline, panics};
use crate::telemetry::{self, TraceContext};
use crate::verify::{AuthenticateError, ClientKey, Credential};

/// The duration from which a successful call is logged at info.
pub(super) const SLOW_CALL: Duration = Duration::from_millis(500);

/// How long the error of a caller over its share is delayed.
const OVER_SHARE: Duration = Duration::from_millis(250);

/// The most bytes of a response about one token: the token and the fields that accompany it.
pub(super) const MAX_ANSWER: usize = LARGEST_TOKEN + 1024;

/// The metadata in which a trusted frontend names the user it acts for.
static ACTING_USER: HeaderName = HeaderName::from_static("tokend-acting-user");
static ACTING_USER_BIN: HeaderName = HeaderName::from_static("tokend-acting-user-bin");

/// How long a response may be.
enum Length {
    /// One token.
    Token,
    /// One token that is being revoked or disabled. Such a call must not fail because other
    /// responses are unread, so it uses memory set aside for it.
    Ended,
    /// A page of at most so many bytes, for callers with this permission.
    Page(Permission, usize),
}

impl TokenApi {
    /// Authenticates the caller and runs `work` inside the call's span, once memory for a response
    /// about one token is reserved.
    pub(super) async fn call<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        work: impl FnOnce(Credential, M) -> F + 'a,
    ) -> Result<Response<A>, Status>
    where
        M: 'a,
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        self.call_or(rpc, request, |_, _| None, work).await
    }

    /// Authenticates the caller and runs `work` like [`Self::call`]; where the credential is
    /// refused, `suspect` says whether that indicates reuse of a token.
    pub(super) async fn call_or<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        suspect: impl FnOnce(&AuthenticateError, &Request<M>) -> Option<ReuseDetection>,
        work: impl FnOnce(Credential, M) -> F + 'a,
    ) -> Result<Response<A>, Status>
    where
        M: 'a,
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let length = match rpc {
            Rpc::RevokeToken | Rpc::RevokeUserTokens | Rpc::DisableToken | Rpc::DisableUser => Length::Ended,
            _ => Length::Token,
        };
        self.call_reserving(rpc, request, suspect, |_| length, work).await
    }

    /// Authenticates the caller, requires `permission`, and runs `work` once it has a page permit
    /// and memory for the `most` bytes that the page may have.
    pub(super) async fn call_for_page<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        permission: Permission,
        request: Request<M>,
        most: impl FnOnce(&M) -> usize + 'a,
        work: impl FnOnce(Credential, M) -> F + 'a,
    ) -> Result<Response<A>, Status>
    where
        M: 'a,
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let length = move |message: &M| Length::Page(permission, most(message));
        self.call_reserving(rpc, request, |_, _| None, length, work).await
    }

    async fn call_reserving<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        suspect: impl FnOnce(&AuthenticateError, &Request<M>) -> Option<ReuseDetection>,
        length: impl FnOnce(&M) -> Length + 'a,
        work: impl FnOnce(Credential, M) -> F + 'a,
    ) -> Result<Response<A>, Status>
    where
        M: 'a,
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let context = self.context.sampling.context(traceparent(request.metadata().as_ref()));
        let taken = Arc::new(OnceLock::new());
        let reservation = Arc::clone(&taken);
        let work = async move |credential: Credential, message| {
            let share = ClientKey::from(credential.caller());
            let (taken, _page_permit) = match length(&message) {
                Length::Token => (self.context.response_memory.reserve(share, MAX_ANSWER)?, None),
                Length::Ended => (self.context.response_memory.reserve_set_aside(share, MAX_ANSWER)?, None),
                Length::Page(permission, most) => {
                    credential.caller().require(permission)?;
                    let page = self.context.response_memory.acquire_page(share, most).await?;
                    (page.reservation.clone(), Some(page))
                }
            };
            // Set only here, so this cannot fail.
            let _ = reservation.set(taken);
            work(credential, message).await
        };
        let mut response = self.call_within(context, rpc, request, suspect, work).await?;
        if let Some(reservation) = taken.get() {
            response.extensions_mut().insert(ResponseReservation::Whole(reservation.clone()));
        }
        Ok(response)
    }

    /// Authenticates the caller and runs `work` for a streaming response, whose messages reserve
    /// their own memory.
    pub(super) async fn open<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        work: impl FnOnce(Credential, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let context = self.context.sampling.context(traceparent(request.metadata().as_ref()));
        self.call_within(context, rpc, request, |_, _| None, work).await
    }

    /// Authenticates the caller and runs `work`, in a trace that is known already.
    pub(super) async fn call_within<'a, M, A, F>(
        &'a self,
        context: TraceContext,
        rpc: Rpc,
        request: Request<M>,
        suspect: impl FnOnce(&AuthenticateError, &Request<M>) -> Option<ReuseDetection>,
        work: impl FnOnce(Credential, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let (span, trace_id) = (self.span(rpc, &context), context.trace_id);
        let started = Instant::now();
        let timeout = timeout(request.metadata().as_ref());
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let mut permit = None;
        let work = async {
            let outcome = panics::caught(async {
                match self.context.callers.authenticate(&self.context.engine, &request).await {
                    Ok(credential) => {
                        let principal = &credential.caller().principal;
                        Span::current().record("caller", field::display(principal));
                        match (
                            self.context.call_permits.take(ClientKey::from(credential.caller())),
                            acting_user(request.metadata().as_ref()),
                        ) {
                            (Ok(taken), Ok(acting_user)) => {
                                permit = Some(taken);
                                let acting = acting_user.map_or(Acting::Caller, Acting::Claimed);
                                let provenance = AuditContext { acting, trace_id: Some(trace_id) };
                                audit_context::within(provenance, work(credential, request.into_inner()))
                                    .await
                            }
                            (Err(refused), _) => Err(refused.into()),
                            (_, Err(violations)) => Err(violations.into()),
                        }
                    }
                    Err(error) => match self.follow(suspect(&error, &request), trace_id).await {
                        Ok(()) => {
                            let peer = request.extensions().get::<Peer>();
                            Err(self.context.callers.refuse(error, peer, &self.context.metrics).await.into())
                        }
                        Err(error) => Err(error),
                    },
                }
            });
            let outcome = outcome.await.unwrap_or_else(|panicked| Err(panicked.into()));
            let outcome = conclude(outcome, started, peer);
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            self.context.metrics.calls.answered(rpc, code.into(), started.elapsed());
            if permit.is_some() && code == Code::ResourceExhausted {
                // The permit is kept meanwhile: a caller that retries at once must not take the
                // processor from others.
                tokio::time::sleep(deadline::at_most(OVER_SHARE)).await;
            }
            outcome
        };
        // On the heap: it is large, and would be moved through every layer above.
        deadline::within(timeout, Box::pin(work)).instrument(span).await
    }
}

impl TokenApi {
    /// Starts the call's span, in the caller's trace if it sends one.
    pub(super) fn span(&self, rpc: Rpc, context: &TraceContext) -> Span {
        let span = tracing::info_span!(
            "rpc",
            otel.name = rpc.name(),
            otel.kind = "server",
            rpc.method = rpc.name(),
            trace.id = %context.trace_id,
            caller = field::Empty,
            token.id = field::Empty,
            user.id = field::Empty,
            verdict = field::Empty,
        );
        telemetry::adopt(&span, context, self.context.sampling);
        span
    }
}

/// Reads the user that a trusted frontend acts for.
pub(super) fn acting_user(headers: &HeaderMap) -> Result<Option<ActingUser>, Violations> {
    const TWICE: FieldError = FieldError::Rule("is sent twice: send one value, in one metadata key");
    let texts = headers.get_all(&ACTING_USER).iter();
    let texts = texts.map(|value| (&ACTING_USER, ActingUser::percent_decoded(value.as_bytes())));
    let binaries = headers.get_all(&ACTING_USER_BIN).iter();
    let binaries = binaries.map(|value| (&ACTING_USER_BIN, ActingUser::base64_decoded(value.as_bytes())));
    let mut values = texts.chain(binaries);
    let Some((key, user)) = values.next() else { return Ok(None) };
    let user = if values.next().is_some() { Err(TWICE) } else { user };
    user.map(Some).map_err(|error| Violations::one(key.as_str(), &error))
}

/// Reads the caller's timeout.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    deadline::parse_timeout(headers.get("grpc-timeout")?.to_str().ok()?)
}

pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok()
}

/// Turns the outcome into what tonic sends, and logs it: success at debug, slow success at info.
pub(super) fn conclude<A>(
    outcome: Result<A, CallError>,
    started: Instant,
    peer: Option<IpAddr>,
) -> Result<Response<A>, Status> {
    let elapsed = started.elapsed();
    let duration_ms = elapsed.as_secs_f64() * 1e3;
    let answered = outcome.map(Response::new).inspect(|_| {
        if elapsed < SLOW_CALL {
            tracing::debug!(duration_ms, "answered");
        } else {
            tracing::info!(duration_ms, "answered slowly");
        }
    });
    answered.map_err(|error| {
        let status = Status::from(&error);
        status::log(&error, &status, Some(duration_ms), peer);
        status
    })
}
