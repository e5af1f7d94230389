//! `VerifyStream`: many requests in one call, answered in order, each judged when it is answered.
//! Reads a bounded number of requests ahead, so that those that need Postgres share a query; reads
//! no more while the client does not read. Called by the service and by `fast_path`.

use std::collections::VecDeque;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};
use tracing::Span;

use super::reply::VerifyStreamReply;
use super::token_api::TokenApi;
use super::verify::{criteria, verify_params};
use super::{convert, fields};
use crate::api::drain::DrainSignal;
use crate::api::error::CallError;
use crate::api::proto::{VerifyRequest, VerifyStreamRequest};
use crate::api::status;
use crate::domain::Permission;
use crate::metrics::{Lookup, Metrics, Rpc, VerdictCounts};
use crate::runtime::panics;
use crate::verify::{
    Consistency, Credential, Engine, PendingVerification, Prefetched, ReadPoint, Verification,
};

/// The most requests read ahead of one that waits, and the most bytes of them: enough for that many
/// with a scope or two. While the client does not read, they stay in memory, and so does what
/// arrived with the last of them, within one message of the maximum size.
const MAX_AHEAD: usize = 128;
const MAX_AHEAD_BYTES: usize = 32 * 1024;

/// How many requests that have arrived are looked up before the first of them is judged.
const LOOKUPS_TOGETHER: usize = 16;

impl TokenApi {
    /// Answers `VerifyStream`, from either source of requests.
    pub(super) async fn answer_stream<Q: VerifyRequests>(
        &self,
        request: Request<Q>,
    ) -> Result<Response<VerifyResponses<Q>>, Status> {
        let drain = DrainSignal::of(&request);
        self.open(Rpc::VerifyStream, request, async |credential, requests| {
            credential.caller().require(Permission::Verify)?;
            let (engine, metrics) = (Arc::clone(&self.context.engine), Arc::clone(&self.context.metrics));
            Ok(VerifyResponses::new(engine, metrics, credential, requests, drain, Span::current()))
        })
        .await
    }
}

/// A source of a stream's requests.
pub trait VerifyRequests: Stream<Item = Result<VerifyStreamRequest, Status>> + Send + Unpin {
    /// Returns whether the next request has already arrived together with earlier ones.
    fn has_next(&self) -> bool;
}

impl VerifyRequests for Streaming<VerifyStreamRequest> {
    fn has_next(&self) -> bool {
        // tonic's stream does not expose this.
        false
    }
}

/// A batch of responses to requests that have arrived together: whether the caller may ask is
/// checked once. Dropped at the batch's end.
#[derive(Default)]
pub(super) struct Batch {
    /// A read point after the last arrival at which the caller's credential was valid.
    read_point: Option<ReadPoint>,
    /// The records looked up at that read point for the next requests that have arrived.
    prefetched: VecDeque<Prefetched>,
    /// The verdicts given, and how many of them came from lookups ahead.
    given: VerdictCounts,
    hits: u64,
}

impl Batch {
    /// Discards the read point and the lookups.
    fn reset(&mut self) {
        self.read_point = None;
        self.prefetched.clear();
    }
}

type Outcome = Result<Verification, CallError>;
type Pending = Pin<Box<dyn Future<Output = (Credential, Outcome)> + Send>>;

/// The responses of one call.
pub struct VerifyResponses<Q> {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    requests: Q,
    /// Moved into the pending answer while there is one.
    credential: Option<Credential>,
    /// Requests that have arrived and have not been looked up.
    arrived: VecDeque<VerifyRequest>,
    ahead: VecDeque<(VerifyRequest, PendingVerification)>,
    ahead_bytes: usize,
    pending: Option<Pending>,
    drain: DrainSignal,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: Ended,
    answers: u64,
    span: Span,
}

/// What is still to come.
#[derive(Debug)]
enum Ended {
    /// More requests.
    No,
    /// The responses to what was read ahead, then this status.
    Draining(Option<Status>),
    /// Nothing.
    Yes,
}

impl<Q: VerifyRequests> VerifyResponses<Q> {
    pub(super) fn new(
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        credential: Credential,
        requests: Q,
        drain: DrainSignal,
        span: Span,
    ) -> Self {
        Self {
            engine,
            metrics,
            requests,
            credential: Some(credential),
            arrived: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            pending: None,
            shutdown: Box::pin(drain.clone().wait()),
            drain,
            ended: Ended::No,
            answers: 0,
            span,
        }
    }

    /// Takes the next request off the call, if one has arrived.
    fn read(&mut self, context: &mut Context<'_>, batch: &mut Batch) -> Option<VerifyRequest> {
        if !matches!(self.ended, Ended::No) {
            return None;
        }
        if !self.requests.has_next() {
            // What arrives from now on must not be answered from an earlier read point.
            batch.reset();
        }
        match Pin::new(&mut self.requests).poll_next(context) {
            Poll::Pending => return None,
            Poll::Ready(Some(Ok(VerifyStreamRequest { request: Some(request) }))) => return Some(request),
            Poll::Ready(Some(Ok(VerifyStreamRequest { request: None }))) => {
                self.ended = Ended::Draining(Some(Status::from(&CallError::from(convert::no_request()))));
            }
            Poll::Ready(Some(Err(status))) => self.ended = Ended::Draining(Some(status)),
            Poll::Ready(None) => self.ended = Ended::Draining(None),
        }
        None
    }

    /// Reads requests while one waits for its answer, and starts their lookups.
    fn read_ahead(&mut self, context: &mut Context<'_>, batch: &mut Batch) {
        while self.ahead.len() < MAX_AHEAD && self.ahead_bytes < MAX_AHEAD_BYTES {
            let Some(request) = self.arrived.pop_front().or_else(|| self.read(context, batch)) else {
                return;
            };
            self.ahead_bytes = self.ahead_bytes.saturating_add(request.encoded_len());
            // An invalid consistency is refused when its request is answered.
            let consistency = fields::consistency(request.consistency).unwrap_or_default();
            let pending = self.engine.begin(&request.secret, consistency);
            self.ahead.push_back((request, pending));
        }
    }

    /// Returns the next request, from those read ahead or off the call.
    fn next(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Option<(VerifyRequest, Option<PendingVerification>)> {
        if let Some((request, pending)) = self.ahead.pop_front() {
            self.ahead_bytes = self.ahead_bytes.saturating_sub(request.encoded_len());
            return Some((request, Some(pending)));
        }
        if let Some(request) = self.arrived.pop_front() {
            return Some((request, None));
        }
        let request = self.read(context, batch)?;
        while self.arrived.len() < LOOKUPS_TOGETHER && self.requests.has_next() {
            let Some(request) = self.read(context, batch) else { break };
            self.arrived.push_back(request);
        }
        Some((request, None))
    }

    /// Returns the batch's read point; `None` when the cache is not fresh, an error when the caller
    /// may not ask.
    fn read_point(&mut self, batch: &mut Batch) -> Option<Result<ReadPoint, CallError>> {
        if batch.read_point.is_none() {
            let read_point = self.engine.read_point()?;
            if let Err(error) = self.engine.try_judge_again(self.credential.as_mut()?, &read_point)? {
                return Some(Err(error.into()));
            }
            batch.read_point = Some(read_point);
        }
        batch.read_point.map(Ok)
    }

    /// Answers from a fresh cache; `None` when the cache cannot.
    fn try_answer(
        &mut self,
        request: &VerifyRequest,
        is_pending: bool,
        batch: &mut Batch,
    ) -> Option<Outcome> {
        let read_point = match self.read_point(batch)? {
            Ok(read_point) => read_point,
            Err(error) => return Some(Err(error)),
        };
        // A request that was already looked up comes before all that has arrived since.
        let ahead = if is_pending { None } else { self.prefetch(request, &read_point, batch) };
        let caller = self.credential.as_ref()?.caller();
        let outcome = verify_params(caller, request).map(|params| {
            let criteria = criteria(caller, &params);
            match ahead {
                _ if params.consistency != Consistency::Bounded => None,
                Some(ahead) => {
                    batch.hits = batch.hits.saturating_add(ahead.is_hit().into());
                    self.engine.judge_prefetched(&ahead, &criteria)
                }
                None => self.engine.try_verify(&request.secret, &criteria, &read_point),
            }
        });
        outcome.transpose()
    }

    /// Returns the lookup for a request, made together with those that arrived after it; `None`
    /// where there is none.
    fn prefetch(
        &self,
        request: &VerifyRequest,
        read_point: &ReadPoint,
        batch: &mut Batch,
    ) -> Option<Prefetched> {
        if batch.prefetched.is_empty() && !self.arrived.is_empty() {
            let bounded = |request: &VerifyRequest| {
                fields::consistency(request.consistency)
                    .is_ok_and(|consistency| consistency == Consistency::Bounded)
            };
            let requests = iter::once(request).chain(&self.arrived);
            if requests.clone().all(bounded) {
                let secrets = requests.map(|request| &*request.secret);
                self.engine.prefetch(secrets, read_point, &mut batch.prefetched);
            }
        }
        batch.prefetched.pop_front()
    }

    /// Returns the next response of a batch; a panic ends the call.
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Option<Result<VerifyStreamReply, Status>>> {
        match panics::catch(|| self.poll_next_answer(context, batch)) {
            Ok(polled) => polled,
            Err(panicked) => Poll::Ready(Some(self.deliver(Err(panicked.into()), batch))),
        }
    }

    fn poll_next_answer(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Option<Result<VerifyStreamReply, Status>>> {
        if matches!(self.ended, Ended::Yes) {
            return Poll::Ready(None);
        }
        // Checked first: a client that never pauses would otherwise not notice the shutdown.
        if self.drain.is_draining() {
            return Poll::Ready(Some(self.shut_down()));
        }
        // A stream that always has something to answer must let other tasks run.
        let progress = ready!(tokio::task::coop::poll_proceed(context));
        loop {
            if let Some(pending) = &mut self.pending {
                if let Poll::Ready((credential, outcome)) = pending.as_mut().poll(context) {
                    self.pending = None;
                    self.credential = Some(credential);
                    progress.made_progress();
                    return Poll::Ready(Some(self.deliver(outcome, batch)));
                }
                self.read_ahead(context, batch);
            } else if let Some((request, pending)) = self.next(context, batch) {
                if let Some(outcome) = self.try_answer(&request, pending.is_some(), batch) {
                    progress.made_progress();
                    return Poll::Ready(Some(self.deliver(outcome, batch)));
                }
                if let Some(credential) = self.credential.take() {
                    let engine = Arc::clone(&self.engine);
                    batch.reset();
                    self.pending = Some(Box::pin(answer(engine, credential, request, pending)));
                    continue;
                }
            } else if !matches!(self.ended, Ended::No) {
                return Poll::Ready(self.end());
            }
            ready!(self.shutdown.as_mut().poll(context));
            return Poll::Ready(Some(self.shut_down()));
        }
    }

    /// Ends a batch and counts its responses.
    pub(super) fn end_batch(&self, batch: &Batch) {
        self.metrics.calls.stream_answers(&batch.given);
        // Misses are looked up again, and counted then.
        self.metrics.engine.lookups(Lookup::Hit, batch.hits);
    }

    /// Counts a response, or ends the call with its error.
    fn deliver(&mut self, outcome: Outcome, batch: &mut Batch) -> Result<VerifyStreamReply, Status> {
        match outcome {
            Ok(answer) => {
                self.answers = self.answers.saturating_add(1);
                batch.given.add(answer.verdict);
                Ok(VerifyStreamReply(answer.into()))
            }
            Err(error) => {
                self.ended = Ended::Yes;
                let status = Status::from(&error);
                self.span.in_scope(|| status::log(&error, &status, None, None));
                Err(status)
            }
        }
    }

    fn shut_down(&mut self) -> Result<VerifyStreamReply, Status> {
        self.ended = Ended::Yes;
        Err(status::shutting_down())
    }

    fn end(&mut self) -> Option<Result<VerifyStreamReply, Status>> {
        match std::mem::replace(&mut self.ended, Ended::Yes) {
            Ended::Draining(Some(status)) => Some(Err(status)),
            _ => None,
        }
    }
}

/// Answers a request that the cache could not.
async fn answer(
    engine: Arc<Engine>,
    mut credential: Credential,
    request: VerifyRequest,
    pending: Option<PendingVerification>,
) -> (Credential, Outcome) {
    let outcome = async {
        engine.judge_again(&mut credential).await?;
        let caller = credential.caller();
        let params = verify_params(caller, &request)?;
        let pending = pending.unwrap_or_else(|| engine.begin(&request.secret, params.consistency));
        Ok(engine.complete(pending, &criteria(caller, &params)).await?)
    };
    let outcome = outcome.await;
    (credential, outcome)
}

impl<Q: VerifyRequests> Stream for VerifyResponses<Q> {
    type Item = Result<VerifyStreamReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Whether the client has paused since the last response is not known here, so each response
        // is a batch.
        let (this, mut batch) = (self.get_mut(), Batch::default());
        let answer = this.poll_answer(context, &mut batch);
        this.end_batch(&batch);
        answer
    }
}

impl<Q> Drop for VerifyResponses<Q> {
    fn drop(&mut self) {
        self.span.in_scope(|| tracing::debug!(answers = self.answers, "the stream ended"));
    }
}
