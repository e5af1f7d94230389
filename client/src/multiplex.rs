//! Many requests over one `VerifyStream`, with each answer returned to its asker. One task owns
//! the call; if it breaks, unanswered requests are sent again over the next one, but for those that may have
//! spent of a token's limits. Called by the verifier.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::proto::{VerifyRequest, VerifyStreamRequest, VerifyStreamResponse};
use crate::retry::pause;
use crate::verification::Verification;

/// The most requests that wait for an answer, and the most that wait to be sent.
const MAX_IN_FLIGHT: usize = 1024;

/// A request, and the channel for its answer.
struct QueuedRequest {
    request: VerifyRequest,
    reply: oneshot::Sender<Result<Verification, Error>>,
}

/// The asking side; the call ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Multiplex {
    queue: mpsc::Sender<QueuedRequest>,
    timeout: Duration,
    _task: Arc<JoinSet<()>>,
}

impl Multiplex {
    pub(crate) fn start(client: &Client) -> Self {
        let (queue, received) = mpsc::channel(MAX_IN_FLIGHT);
        let mut task = JoinSet::new();
        task.spawn(StreamTask { client: client.clone(), queue: received, unanswered: VecDeque::new() }.run());
        Self { queue, timeout: client.call_timeout(), _task: Arc::new(task) }
    }

    pub(crate) async fn verify(&self, request: VerifyRequest) -> Result<Verification, Error> {
        let (reply, response) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        // If too many wait already, this one waits for capacity.
        let queued =
            tokio::time::timeout_at(deadline, self.queue.send(QueuedRequest { request, reply })).await;
        queued.map_err(|_| Error::overloaded())?.map_err(|_| Error::lost())?;
        let response = tokio::time::timeout_at(deadline, response).await.map_err(|_| Error::overdue())?;
        response.map_err(|_| Error::lost())?
    }
}

/// The task's state between calls.
struct StreamTask {
    client: Client,
    queue: mpsc::Receiver<QueuedRequest>,
    /// The requests to send first over the next call.
    unanswered: VecDeque<QueuedRequest>,
}

impl StreamTask {
    /// Opens one call after the other, each when there is a request.
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.unanswered.is_empty() {
                let Some(queued) = self.queue.recv().await else { return };
                self.unanswered.push_back(queued);
            }
            let known = self.client.current_secret();
            match self.run_stream().await {
                Ok(()) => failures = 0,
                Err(error) if self.client.has_another(&error, known.as_ref()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.refuse(&error);
                    tokio::time::sleep(pause(failures).max(error.retry_after().unwrap_or_default())).await;
                }
            }
            // An asker past its deadline has gone, or will in a moment.
            self.unanswered.retain(|queued| !queued.reply.is_closed());
        }
    }

    /// Answers with the call's error where a retry would fail in the same way: for the first
    /// request if it ended the call, for all if the caller's credential did.
    fn refuse(&mut self, error: &Error) {
        let count = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => 0,
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => self.unanswered.len(),
            _ => 1,
        };
        for queued in self.unanswered.drain(..count.min(self.unanswered.len())) {
            // An asker that has gone needs no answer.
            let _ = queued.reply.send(Err(error.clone()));
        }
    }

    /// Sends requests and returns answers over one call until it ends; unanswered requests are
    /// kept for the next. `Ok` if something was answered.
    async fn run_stream(&mut self) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(2 * MAX_IN_FLIGHT);
        let mut raw = self.client.generated();
        let opened = raw.verify_stream(ReceiverStream::new(receiver));
        let opened = tokio::time::timeout(self.client.call_timeout(), opened).await;
        let opened = opened.map_err(|_| Error::overdue())?.map_err(|status| Error::of(&status))?;
        let mut answers = opened.into_inner();
        let mut waiting = std::mem::take(&mut self.unanswered);
        let outcome = async {
            for queued in &waiting {
                send(&sender, queued)?;
            }
            self.exchange(&sender, &mut answers, &mut waiting).await
        };
        let outcome = outcome.await;
        if let Err(error) = &outcome {
            self.give_up(&mut waiting, error);
        }
        self.unanswered = waiting;
        outcome
    }

    /// Answers the requests that a call has left without an answer and that may have spent: they are not sent again.
    fn give_up(&self, waiting: &mut VecDeque<QueuedRequest>, error: &Error) {
        if error.was_not_processed() {
            return;
        }
        for queued in std::mem::take(waiting) {
            if self.client.may_repeat(&queued.request) {
                waiting.push_back(queued);
            } else {
                let _ = queued.reply.send(Err(error.clone()));
            }
        }
    }

    async fn exchange(
        &mut self,
        sender: &mpsc::Sender<VerifyStreamRequest>,
        answers: &mut Streaming<VerifyStreamResponse>,
        waiting: &mut VecDeque<QueuedRequest>,
    ) -> Result<(), Error> {
        let timeout = self.client.call_timeout();
        let mut received = Instant::now();
        let mut answered = false;
        loop {
            let timed_out = async {
                if waiting.is_empty() {
                    std::future::pending::<()>().await;
                } else {
                    tokio::time::sleep_until(received + timeout).await;
                }
            };
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(VerifyStreamResponse { response: Some(response) })) => {
                        let queued = waiting.pop_front().ok_or_else(|| Error::invalid_response("request"))?;
                        let _ = queued.reply.send(response.try_into());
                        received = Instant::now();
                        answered = true;
                    }
                    Ok(Some(VerifyStreamResponse { response: None })) => return Err(Error::invalid_response("response")),
                    Ok(None) => return Err(Error::lost()),
                    // The next call shows whether it was more than the end of this one.
                    Err(status) => {
                        let error = Error::of(&status);
                        let passing = error.kind() == ErrorKind::Unavailable;
                        self.give_up(waiting, &error);
                        return if answered && passing { Ok(()) } else { Err(error) };
                    }
                },
                queued = self.queue.recv(), if waiting.len() < MAX_IN_FLIGHT => {
                    let Some(queued) = queued else { return Ok(()) };
                    if waiting.is_empty() {
                        received = Instant::now();
                    }
                    // Added to the waiting ones first: if it cannot be sent, it is queued again.
                    let sent = send(sender, &queued);
                    waiting.push_back(queued);
                    sent?;
                }
                // The askers have been answered by their own deadlines.
                () = timed_out => return Err(Error::overdue()),
            }
        }
    }
}

/// Sends a request; there is capacity, since at most so many wait.
fn send(sender: &mpsc::Sender<VerifyStreamRequest>, queued: &QueuedRequest) -> Result<(), Error> {
    let request = Some(queued.request.clone());
    sender.try_send(VerifyStreamRequest { request }).map_err(|_| Error::lost())
}
