//! `VerifyStream`: many questions over one call, answered in their order, each judged when it is answered.
//! Reads ahead a bounded number of questions, so that those that need Postgres wait for it together; asks for
//! no more while the reader of the answers pauses. Called by the service alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Status, Streaming};
use tracing::Span;

use super::error::CallError;
use super::proto::{VerifyRequest, VerifyStreamRequest};
use super::reply::VerifyStreamReply;
use super::service::drained;
use super::verify::{asked_of, question};
use super::{convert, status};
use crate::metrics::Metrics;
use crate::verify::{Answer, Asked, Consistency, Credential, Engine};

/// How many questions are read ahead of the one that is being answered, and how many bytes they may have: room for
/// so many with a scope or two. It is kept for as long as nobody reads the answers.
const AHEAD: usize = 128;
const AHEAD_BYTES: usize = 32 * 1024;

type Outcome = Result<Answer, CallError>;
type Pending = Pin<Box<dyn Future<Output = (Credential, Outcome)> + Send>>;

/// The answers of one call.
pub struct VerifyAnswers {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    questions: Streaming<VerifyStreamRequest>,
    /// Lent to the answer that is waited for.
    credential: Option<Credential>,
    ahead: VecDeque<(VerifyRequest, Asked)>,
    ahead_bytes: usize,
    pending: Option<Pending>,
    draining: watch::Receiver<bool>,
    drained: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: Ended,
    answers: u64,
    span: Span,
}

/// What is still to come.
#[derive(Debug)]
enum Ended {
    /// More questions.
    No,
    /// The answers to what was read ahead, then this.
    Asking(Option<Status>),
    /// Nothing.
    Yes,
}

impl VerifyAnswers {
    pub(super) fn new(
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        credential: Credential,
        questions: Streaming<VerifyStreamRequest>,
        draining: watch::Receiver<bool>,
        span: Span,
    ) -> Self {
        Self {
            engine,
            metrics,
            questions,
            credential: Some(credential),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            pending: None,
            drained: Box::pin(drained(draining.clone())),
            draining,
            ended: Ended::No,
            answers: 0,
            span,
        }
    }

    /// Takes the next question off the call, if there is one now.
    fn read(&mut self, context: &mut Context<'_>) -> Option<VerifyRequest> {
        if !matches!(self.ended, Ended::No) {
            return None;
        }
        match Pin::new(&mut self.questions).poll_next(context) {
            Poll::Pending => return None,
            Poll::Ready(Some(Ok(VerifyStreamRequest { request: Some(request) }))) => return Some(request),
            Poll::Ready(Some(Ok(VerifyStreamRequest { request: None }))) => {
                self.ended = Ended::Asking(Some(Status::from(&CallError::from(convert::no_request()))));
            }
            Poll::Ready(Some(Err(status))) => self.ended = Ended::Asking(Some(status)),
            Poll::Ready(None) => self.ended = Ended::Asking(None),
        }
        None
    }

    /// Reads questions while an answer is waited for, and begins to find out what they need.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        while self.ahead.len() < AHEAD && self.ahead_bytes < AHEAD_BYTES {
            let Some(request) = self.read(context) else { return };
            self.ahead_bytes += request.encoded_len();
            // A consistency that does not exist is refused when its turn comes.
            let consistency = convert::consistency(request.consistency).unwrap_or_default();
            let asked = self.engine.ask(&request.secret, consistency);
            self.ahead.push_back((request, asked));
        }
    }

    /// Returns the next question, from what was read ahead or off the call.
    fn next(&mut self, context: &mut Context<'_>) -> Option<(VerifyRequest, Option<Asked>)> {
        if let Some((request, asked)) = self.ahead.pop_front() {
            self.ahead_bytes -= request.encoded_len();
            return Some((request, Some(asked)));
        }
        self.read(context).map(|request| (request, None))
    }

    /// Answers from a fresh cache; `None` when that cannot tell.
    fn answer_now(&mut self, request: &VerifyRequest) -> Option<Outcome> {
        let credential = self.credential.as_mut()?;
        let present = self.engine.present()?;
        if let Err(error) = self.engine.judge_again_now(credential, &present)? {
            return Some(Err(error.into()));
        }
        let outcome = question(credential.caller(), request).map(|wanted| {
            let question = asked_of(credential.caller(), &wanted);
            let bounded = wanted.consistency == Consistency::Bounded;
            bounded.then(|| self.engine.verify_now(&request.secret, &question, &present)).flatten()
        });
        outcome.transpose()
    }

    /// Counts an answer, or ends the call with why there is none.
    fn deliver(&mut self, outcome: Outcome) -> Result<VerifyStreamReply, Status> {
        match outcome {
            Ok(answer) => {
                self.answers += 1;
                self.metrics.calls.stream_answer(answer.verdict);
                Ok(VerifyStreamReply(answer.into()))
            }
            Err(error) => {
                self.ended = Ended::Yes;
                let status = Status::from(&error);
                self.span.in_scope(|| status::log(&error, &status, None));
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
            Ended::Asking(Some(status)) => Some(Err(status)),
            _ => None,
        }
    }
}

/// Answers a question for which the cache was not enough.
async fn answer(
    engine: Arc<Engine>,
    mut credential: Credential,
    request: VerifyRequest,
    asked: Option<Asked>,
) -> (Credential, Outcome) {
    let outcome = async {
        engine.judge_again(&mut credential).await?;
        let caller = credential.caller();
        let wanted = question(caller, &request)?;
        let asked = asked.unwrap_or_else(|| engine.ask(&request.secret, wanted.consistency));
        Ok(engine.answer(asked, &asked_of(caller, &wanted)).await?)
    };
    let outcome = outcome.await;
    (credential, outcome)
}

impl Stream for VerifyAnswers {
    type Item = Result<VerifyStreamReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if matches!(this.ended, Ended::Yes) {
            return Poll::Ready(None);
        }
        // Asked first: a caller that never pauses would not be told otherwise.
        if this.draining.has_changed().unwrap_or(true) {
            return Poll::Ready(Some(this.shut_down()));
        }
        // A stream that always has something to answer lets other tasks have their turn.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        loop {
            if let Some(pending) = &mut this.pending {
                if let Poll::Ready((credential, outcome)) = pending.as_mut().poll(context) {
                    this.pending = None;
                    this.credential = Some(credential);
                    turn.made_progress();
                    return Poll::Ready(Some(this.deliver(outcome)));
                }
                this.read_ahead(context);
            } else if let Some((request, asked)) = this.next(context) {
                if let Some(outcome) = this.answer_now(&request) {
                    turn.made_progress();
                    return Poll::Ready(Some(this.deliver(outcome)));
                }
                if let Some(credential) = this.credential.take() {
                    let engine = Arc::clone(&this.engine);
                    this.pending = Some(Box::pin(answer(engine, credential, request, asked)));
                    continue;
                }
            } else if !matches!(this.ended, Ended::No) {
                return Poll::Ready(this.end());
            }
            ready!(this.drained.as_mut().poll(context));
            return Poll::Ready(Some(this.shut_down()));
        }
    }
}

impl Drop for VerifyAnswers {
    fn drop(&mut self) {
        self.span.in_scope(|| tracing::debug!(answers = self.answers, "the stream ended"));
    }
}
