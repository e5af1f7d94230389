//! `VerifyStream`: many questions over one call, answered in their order, each judged when it is answered.
//! Reads ahead a bounded number of questions, so that those that need Postgres wait for it together; asks for
//! no more while the reader of the answers pauses. Called by the service, and by `direct`.

use std::collections::VecDeque;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message as _;
use tonic::{Status, Streaming};
use tracing::Span;

use super::convert;
use super::reply::VerifyStreamReply;
use super::verify::{asked_of, question};
use crate::api::ending::Ending;
use crate::api::error::CallError;
use crate::api::proto::{VerifyRequest, VerifyStreamRequest};
use crate::api::status;
use crate::metrics::{Lookup, Metrics, Tally};
use crate::runtime::panics;
use crate::verify::{Answer, Asked, Consistency, Credential, Engine, LookedAhead, ReadPoint};

/// How many questions are read ahead of one that has to wait for its answer, and how many bytes they may have: room for
/// so many with a scope or two. They are kept for as long as nobody reads the answers, and so are those that have arrived
/// with the last of them, within one message of the longest.
const AHEAD: usize = 128;
const AHEAD_BYTES: usize = 32 * 1024;

/// How many questions that have arrived are looked up one after the other, before the first of them is judged.
const TOGETHER: usize = 16;

/// Where a stream's questions come from.
pub trait Questions: Stream<Item = Result<VerifyStreamRequest, Status>> + Send + Unpin {
    /// Tells whether the next one has arrived already, with those before it.
    fn has_next(&self) -> bool;
}

impl Questions for Streaming<VerifyStreamRequest> {
    fn has_next(&self) -> bool {
        // It does not say.
        false
    }
}

/// A turn of a stream, in which it answers what has arrived: that it may, is found out once. Not kept beyond it.
#[derive(Default)]
pub(super) struct Batch {
    /// A moment after the last arrival at which the caller's credential was good.
    present: Option<ReadPoint>,
    /// What was looked up then for the first of the questions that have arrived.
    looked_ahead: VecDeque<LookedAhead>,
    /// What was answered, and how much of it by what was looked up ahead.
    given: Tally,
    hits: u64,
}

impl Batch {
    /// Forgets what it has found out.
    fn begin_anew(&mut self) {
        self.present = None;
        self.looked_ahead.clear();
    }
}

type Outcome = Result<Answer, CallError>;
type Pending = Pin<Box<dyn Future<Output = (Credential, Outcome)> + Send>>;

/// The answers of one call.
pub struct VerifyAnswers<Q> {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    questions: Q,
    /// Lent to the answer that is waited for.
    credential: Option<Credential>,
    /// Questions that have arrived, and that nothing was asked for yet.
    arrived: VecDeque<VerifyRequest>,
    ahead: VecDeque<(VerifyRequest, Asked)>,
    ahead_bytes: usize,
    pending: Option<Pending>,
    ending: Ending,
    told: Pin<Box<dyn Future<Output = ()> + Send>>,
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

impl<Q: Questions> VerifyAnswers<Q> {
    pub(super) fn new(
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        credential: Credential,
        questions: Q,
        ending: Ending,
        span: Span,
    ) -> Self {
        Self {
            engine,
            metrics,
            questions,
            credential: Some(credential),
            arrived: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            pending: None,
            told: Box::pin(ending.clone().begun()),
            ending,
            ended: Ended::No,
            answers: 0,
            span,
        }
    }

    /// Takes the next question off the call, if there is one now.
    fn read(&mut self, context: &mut Context<'_>, turn: &mut Batch) -> Option<VerifyRequest> {
        if !matches!(self.ended, Ended::No) {
            return None;
        }
        if !self.questions.has_next() {
            // Whatever arrives now is not answered by what was known before.
            turn.begin_anew();
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
    fn read_ahead(&mut self, context: &mut Context<'_>, turn: &mut Batch) {
        while self.ahead.len() < AHEAD && self.ahead_bytes < AHEAD_BYTES {
            let Some(request) = self.arrived.pop_front().or_else(|| self.read(context, turn)) else { return };
            self.ahead_bytes = self.ahead_bytes.saturating_add(request.encoded_len());
            // A consistency that does not exist is refused when its turn comes.
            let consistency = convert::consistency(request.consistency).unwrap_or_default();
            let asked = self.engine.ask(&request.secret, consistency);
            self.ahead.push_back((request, asked));
        }
    }

    /// Returns the next question, from what was read ahead or off the call.
    fn next(
        &mut self,
        context: &mut Context<'_>,
        turn: &mut Batch,
    ) -> Option<(VerifyRequest, Option<Asked>)> {
        if let Some((request, asked)) = self.ahead.pop_front() {
            self.ahead_bytes = self.ahead_bytes.saturating_sub(request.encoded_len());
            return Some((request, Some(asked)));
        }
        if let Some(request) = self.arrived.pop_front() {
            return Some((request, None));
        }
        let request = self.read(context, turn)?;
        while self.arrived.len() < TOGETHER && self.questions.has_next() {
            let Some(request) = self.read(context, turn) else { break };
            self.arrived.push_back(request);
        }
        Some((request, None))
    }

    /// Tells at which moment this turn answers; `None` when the cache cannot, an error when the caller may not ask.
    fn present(&mut self, turn: &mut Batch) -> Option<Result<ReadPoint, CallError>> {
        if turn.present.is_none() {
            let present = self.engine.present()?;
            if let Err(error) = self.engine.try_judge_again(self.credential.as_mut()?, &present)? {
                return Some(Err(error.into()));
            }
            turn.present = Some(present);
        }
        turn.present.map(Ok)
    }

    /// Answers from a fresh cache; `None` when that cannot tell.
    fn answer_now(&mut self, request: &VerifyRequest, asked: bool, turn: &mut Batch) -> Option<Outcome> {
        let present = match self.present(turn)? {
            Ok(present) => present,
            Err(error) => return Some(Err(error)),
        };
        // What had to be asked for stood before all that has arrived since.
        let ahead = if asked { None } else { self.look_ahead(request, &present, turn) };
        let caller = self.credential.as_ref()?.caller();
        let outcome = question(caller, request).map(|wanted| {
            let question = asked_of(caller, &wanted);
            match ahead {
                _ if wanted.consistency != Consistency::Bounded => None,
                Some(ahead) => {
                    turn.hits = turn.hits.saturating_add(ahead.is_hit().into());
                    self.engine.judge_ahead(&ahead, &question)
                }
                None => self.engine.try_verify(&request.secret, &question, &present),
            }
        });
        outcome.transpose()
    }

    /// Returns what was looked up for a question, with those that have arrived behind it; `None` where that is not done.
    fn look_ahead(
        &self,
        request: &VerifyRequest,
        present: &ReadPoint,
        turn: &mut Batch,
    ) -> Option<LookedAhead> {
        if turn.looked_ahead.is_empty() && !self.arrived.is_empty() {
            let bounded = |request: &VerifyRequest| {
                convert::consistency(request.consistency).is_ok_and(|wanted| wanted == Consistency::Bounded)
            };
            let requests = iter::once(request).chain(&self.arrived);
            if requests.clone().all(bounded) {
                let secrets = requests.map(|request| &*request.secret);
                self.engine.look_ahead(secrets, present, &mut turn.looked_ahead);
            }
        }
        turn.looked_ahead.pop_front()
    }

    /// Gives the next answer in a turn; where that panics, the call ends.
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        turn: &mut Batch,
    ) -> Poll<Option<Result<VerifyStreamReply, Status>>> {
        match panics::catch(|| self.poll_next_answer(context, turn)) {
            Ok(polled) => polled,
            Err(panicked) => Poll::Ready(Some(self.deliver(Err(panicked.into()), turn))),
        }
    }

    fn poll_next_answer(
        &mut self,
        context: &mut Context<'_>,
        turn: &mut Batch,
    ) -> Poll<Option<Result<VerifyStreamReply, Status>>> {
        if matches!(self.ended, Ended::Yes) {
            return Poll::Ready(None);
        }
        // Asked first: a caller that never pauses would not be told otherwise.
        if self.ending.has_begun() {
            return Poll::Ready(Some(self.shut_down()));
        }
        // A stream that always has something to answer lets other tasks have their turn.
        let progress = ready!(tokio::task::coop::poll_proceed(context));
        loop {
            if let Some(pending) = &mut self.pending {
                if let Poll::Ready((credential, outcome)) = pending.as_mut().poll(context) {
                    self.pending = None;
                    self.credential = Some(credential);
                    progress.made_progress();
                    return Poll::Ready(Some(self.deliver(outcome, turn)));
                }
                self.read_ahead(context, turn);
            } else if let Some((request, asked)) = self.next(context, turn) {
                if let Some(outcome) = self.answer_now(&request, asked.is_some(), turn) {
                    progress.made_progress();
                    return Poll::Ready(Some(self.deliver(outcome, turn)));
                }
                if let Some(credential) = self.credential.take() {
                    let engine = Arc::clone(&self.engine);
                    turn.begin_anew();
                    self.pending = Some(Box::pin(answer(engine, credential, request, asked)));
                    continue;
                }
            } else if !matches!(self.ended, Ended::No) {
                return Poll::Ready(self.end());
            }
            ready!(self.told.as_mut().poll(context));
            return Poll::Ready(Some(self.shut_down()));
        }
    }

    /// Ends a turn.
    pub(super) fn end_batch(&self, turn: &Batch) {
        self.metrics.calls.stream_answers(&turn.given);
        // What was not found is looked up again, and counted then.
        self.metrics.engine.lookups(Lookup::Hit, turn.hits);
    }

    /// Counts an answer, or ends the call with why there is none.
    fn deliver(&mut self, outcome: Outcome, turn: &mut Batch) -> Result<VerifyStreamReply, Status> {
        match outcome {
            Ok(answer) => {
                self.answers = self.answers.saturating_add(1);
                turn.given.add(answer.verdict);
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

impl<Q: Questions> Stream for VerifyAnswers<Q> {
    type Item = Result<VerifyStreamReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Whether its reader has paused since the last answer is not known here.
        let (this, mut turn) = (self.get_mut(), Batch::default());
        let answer = this.poll_answer(context, &mut turn);
        this.end_batch(&turn);
        answer
    }
}

impl<Q> Drop for VerifyAnswers<Q> {
    fn drop(&mut self) {
        self.span.in_scope(|| tracing::debug!(answers = self.answers, "the stream ended"));
    }
}
