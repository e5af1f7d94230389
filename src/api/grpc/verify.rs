//! Verify: answered directly and without a span for a known caller; for all others like every call.
//! Called by the service; the stream shares its reading of a request.

use std::sync::Arc;
use std::time::Instant;

use tonic::codegen::http::HeaderMap;
use tonic::{Code, Request, Response, Status};
use tracing::{Span, field};

use super::call::{SLOW_CALL, acting_user, conclude, timeout, traceparent};
use super::convert;
use super::convert::VerifyParams;
use super::reply::VerifyReply;
use super::token_api::TokenApi;
use crate::api::error::CallError;
use crate::api::proto::{Verdict, VerifyRequest};
use crate::auth::peer::Peer;
use crate::domain::plan::PlanName;
use crate::domain::{Caller, Permission};
use crate::metrics::Rpc;
use crate::runtime::deadline;
use crate::telemetry::TraceContext;
use crate::verify::{ClientKey, Consistency, Credential, Criteria, ReadPoint, Verification};

/// Reads a Verify request, if the caller may ask it.
pub(super) fn verify_params(caller: &Caller, message: &VerifyRequest) -> Result<VerifyParams, CallError> {
    caller.require(Permission::Verify)?;
    Ok(convert::verify_request(message)?)
}

/// Returns the engine's request for a caller.
pub(super) fn criteria<'a>(caller: &'a Caller, params: &'a VerifyParams) -> Criteria<'a> {
    Criteria {
        required: &params.required,
        reach: caller.verify_reach(),
        client_ip: params.client_ip,
        charged_to: ClientKey::from(caller),
        cost: params.cost,
        limit: params.limit.as_ref().map(PlanName::as_str),
    }
}

/// Records the verdict in a call's span.
fn record_answer(span: &Span, answer: &Verification) {
    span.record("verdict", Verdict::from(answer.verdict).as_str_name());
    if let Some((record, _)) = &answer.token {
        span.record("token.id", record.packed().id());
    }
}

/// How far a Verify call got without waiting.
pub(super) enum VerifyProgress {
    /// It is answered.
    Answered(Result<VerifyReply, Status>),
    /// The caller is known, but the secret is not, or Postgres must be asked.
    Authenticated(AuthenticatedCall),
    /// The caller is not known, or the call needs a span, in this trace.
    Unauthenticated(TraceContext),
}

/// A known caller, and what it asks.
pub(super) struct AuthenticatedCall {
    credential: Arc<Credential>,
    params: VerifyParams,
    started: Instant,
}

impl TokenApi {
    /// Answers Verify.
    pub(super) async fn answer_verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyReply>, Status> {
        let peer = request.extensions().get::<Peer>();
        let progress = self.begin_verify(request.metadata().as_ref(), peer, request.get_ref());
        self.finish_verify(progress, request).await
    }

    /// Answers Verify from a fresh cache, or returns what is left to do. A span costs more than a
    /// response, so only a call that is logged or exported gets one.
    pub(super) fn begin_verify(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        message: &VerifyRequest,
    ) -> VerifyProgress {
        let started = Instant::now();
        // Drawn once: a call must not be sampled by two separate draws.
        let context =
            self.context.sampling.exports().then(|| self.context.sampling.context(traceparent(headers)));
        let spanned = tracing::enabled!(tracing::Level::DEBUG) || context.is_some_and(|drawn| drawn.sampled);
        let authenticated = if spanned { None } else { self.try_authenticate(headers, peer) };
        let Some((credential, read_point)) = authenticated else {
            return VerifyProgress::Unauthenticated(
                context.unwrap_or_else(|| self.context.sampling.context(traceparent(headers))),
            );
        };
        let caller = credential.caller();
        let params = match acting_user(headers)
            .map_err(CallError::from)
            .and_then(|_| verify_params(caller, message))
        {
            Ok(params) => params,
            Err(error) => {
                return VerifyProgress::Answered(self.conclude_verify(caller, headers, Err(error), started));
            }
        };
        if params.consistency == Consistency::Bounded {
            let answer =
                self.context.engine.try_verify(&message.secret, &criteria(caller, &params), &read_point);
            if let Some(answer) = answer {
                return VerifyProgress::Answered(self.conclude_verify(caller, headers, Ok(answer), started));
            }
        }
        VerifyProgress::Authenticated(AuthenticatedCall { credential, params, started })
    }

    /// Answers what could not be answered without waiting.
    pub(super) async fn finish_verify(
        &self,
        progress: VerifyProgress,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyReply>, Status> {
        match progress {
            VerifyProgress::Answered(outcome) => outcome.map(Response::new),
            VerifyProgress::Authenticated(AuthenticatedCall { credential, params, started }) => {
                let (caller, headers) = (credential.caller(), request.metadata().as_ref());
                let outcome = self.find_out(caller, headers, &request.get_ref().secret, &params).await;
                self.conclude_verify(caller, headers, outcome, started).map(Response::new)
            }
            VerifyProgress::Unauthenticated(context) => {
                self.call_within(
                    context,
                    Rpc::Verify,
                    request,
                    |_, _| None,
                    async |credential, message| Ok(self.verify_in_span(credential, message).await?.into()),
                )
                .await
            }
        }
    }

    /// Authenticates the caller from a fresh cache; `None` when the cache cannot.
    fn try_authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Option<(Arc<Credential>, ReadPoint)> {
        let read_point = self.context.engine.read_point()?;
        Some((
            self.context.callers.try_authenticate(&self.context.engine, headers, peer?, &read_point)?,
            read_point,
        ))
    }

    /// Answers a known caller's request through the engine, which may wait.
    async fn find_out(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        secret: &str,
        params: &VerifyParams,
    ) -> Result<Verification, CallError> {
        let criteria = criteria(caller, params);
        let _permit = self.context.call_permits.take(criteria.charged_to)?;
        let work = self.context.engine.verify(secret, &criteria, params.consistency);
        // On the heap, as in `call`.
        Ok(deadline::within(timeout(headers), Box::pin(work)).await?)
    }

    /// Counts a known caller's response, and logs it if it is slow or an error.
    fn conclude_verify(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        outcome: Result<Verification, CallError>,
        started: Instant,
    ) -> Result<VerifyReply, Status> {
        let elapsed = started.elapsed();
        let outcome = match outcome.inspect(|answer| self.context.metrics.calls.verdict(answer.verdict)) {
            Ok(answer) if elapsed < SLOW_CALL => Ok(answer.into()),
            outcome => {
                let span = self.span(Rpc::Verify, &self.context.sampling.context(traceparent(headers)));
                span.record("caller", field::display(&caller.principal));
                let outcome = outcome.inspect(|answer| record_answer(&span, answer));
                span.in_scope(|| conclude(outcome.map(VerifyReply::from), started, None))
                    .map(Response::into_inner)
            }
        };
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.context.metrics.calls.answered(Rpc::Verify, code.into(), elapsed);
        outcome
    }

    async fn verify_in_span(
        &self,
        credential: Credential,
        message: VerifyRequest,
    ) -> Result<Verification, CallError> {
        let caller = credential.caller();
        let params = verify_params(caller, &message)?;
        let criteria = criteria(caller, &params);
        let answer = self.context.engine.verify(&message.secret, &criteria, params.consistency).await?;
        self.context.metrics.calls.verdict(answer.verdict);
        record_answer(&Span::current(), &answer);
        Ok(answer)
    }
}
