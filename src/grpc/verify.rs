//! Verify: for a caller that is known already at once, without a span; for all others as every call goes.
//! Called by the service; what a question is, also by the stream.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Code, Request, Response, Status};
use tracing::{Span, field};

use super::call::{SLOW, acting_user, conclude, timeout, traceparent};
use super::convert;
use super::convert::Wanted;
use super::error::CallError;
use super::proto::VerifyRequest;
use super::reply::VerifyReply;
use super::service::TokenApi;
use crate::deadline;
use crate::domain::{Caller, Permission};
use crate::metrics::Rpc;
use crate::verify::{Answer, Consistency, Credential, Present, Question, Share};

/// Reads what Verify is asked, for a caller that may ask it.
pub(super) fn question(caller: &Caller, message: &VerifyRequest) -> Result<Wanted, CallError> {
    caller.require(Permission::Verify)?;
    Ok(convert::verify_request(message)?)
}

/// Returns what the engine is asked for a caller.
pub(super) fn asked_of<'a>(caller: &'a Caller, wanted: &'a Wanted) -> Question<'a> {
    Question {
        required: &wanted.required,
        reach: caller.verify_reach(),
        client_ip: wanted.client_ip,
        share: Share::Caller(caller.principal.clone()),
    }
}

/// Says in a call's span what Verify answers.
fn record_answer(span: &Span, answer: &Answer) {
    span.record("verdict", convert::verdict(answer.verdict).as_str_name());
    if let Some((record, _)) = &answer.token {
        span.record("token.id", record.packed().id());
    }
}

impl TokenApi {
    /// Answers Verify.
    pub(super) async fn answer_verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyReply>, Status> {
        let started = Instant::now();
        // Drawn once: whether a call is sampled must not be asked twice.
        let context = self.sampling.exports().then(|| self.sampling.context(traceparent(&request)));
        let wanted = tracing::enabled!(tracing::Level::DEBUG) || context.is_some_and(|drawn| drawn.sampled);
        if !wanted && let Some((credential, present)) = self.known_caller(&request) {
            return self.verify_for(credential.caller(), &request, &present, started).await;
        }
        let context = context.unwrap_or_else(|| self.sampling.context(traceparent(&request)));
        self.call_within(
            context,
            Rpc::Verify,
            request,
            |_, _| None,
            async |credential, message| Ok(self.verify_slowly(credential, message).await?.into()),
        )
        .await
    }

    /// Authenticates the caller from a fresh cache; `None` when that cannot tell.
    fn known_caller<M>(&self, request: &Request<M>) -> Option<(Arc<Credential>, Present)> {
        let present = self.engine.present()?;
        Some((self.callers.authenticate_now(&self.engine, request, &present)?, present))
    }

    /// Answers Verify for a caller that is known already. A span costs more than an answer: here only what is
    /// logged has one.
    async fn verify_for(
        &self,
        caller: &Caller,
        request: &Request<VerifyRequest>,
        present: &Present,
        started: Instant,
    ) -> Result<Response<VerifyReply>, Status> {
        let outcome = self.find_out(caller, request, present).await;
        let elapsed = started.elapsed();
        let outcome = match outcome.inspect(|answer| self.metrics.calls.verdict(answer.verdict)) {
            Ok(answer) if elapsed < SLOW => Ok(Response::new(answer.into())),
            outcome => {
                let span = self.span(Rpc::Verify, &self.sampling.context(traceparent(request)));
                span.record("caller", field::display(&caller.principal));
                let outcome = outcome.inspect(|answer| record_answer(&span, answer));
                span.in_scope(|| conclude(outcome.map(VerifyReply::from), started))
            }
        };
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.calls.answered(Rpc::Verify, code.into(), elapsed);
        outcome
    }

    /// Judges a secret: at once, if the cache can.
    async fn find_out(
        &self,
        caller: &Caller,
        request: &Request<VerifyRequest>,
        present: &Present,
    ) -> Result<Answer, CallError> {
        acting_user(request)?;
        let message = request.get_ref();
        let wanted = question(caller, message)?;
        let question = asked_of(caller, &wanted);
        if wanted.consistency == Consistency::Bounded
            && let Some(answer) = self.engine.verify_now(&message.secret, &question, present)
        {
            return Ok(answer);
        }
        let _place = self.places.take(question.share.clone())?;
        let work = self.engine.verify(&message.secret, &question, wanted.consistency);
        // On the heap, as in `call`.
        Ok(deadline::within(timeout(request), Box::pin(work)).await?)
    }

    async fn verify_slowly(
        &self,
        credential: Credential,
        message: VerifyRequest,
    ) -> Result<Answer, CallError> {
        let caller = credential.caller();
        let wanted = question(caller, &message)?;
        let question = asked_of(caller, &wanted);
        let answer = self.engine.verify(&message.secret, &question, wanted.consistency).await?;
        self.metrics.calls.verdict(answer.verdict);
        record_answer(&Span::current(), &answer);
        Ok(answer)
    }
}
