//! Many questions over one `VerifyStream`, with each answer returned to its asker. One task owns
//! the call; if it breaks, unanswered questions are sent again over the next one, since judging
//! changes nothing. Called by the verifier.

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
use crate::question::Answer;
use crate::retry::pause;

/// The most questions that wait for an answer, and the most that wait to be sent.
const MOST: usize = 1024;

/// A question, and the channel for its answer.
struct Asked {
    request: VerifyRequest,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

/// The asking side; the call ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Multiplex {
    questions: mpsc::Sender<Asked>,
    patience: Duration,
    _task: Arc<JoinSet<()>>,
}

impl Multiplex {
    pub(crate) fn start(client: &Client) -> Self {
        let (questions, asked) = mpsc::channel(MOST);
        let mut task = JoinSet::new();
        task.spawn(Conversation { client: client.clone(), asked, again: VecDeque::new() }.run());
        Self { questions, patience: client.call_timeout(), _task: Arc::new(task) }
    }

    pub(crate) async fn ask(&self, request: VerifyRequest) -> Result<Answer, Error> {
        let (answer, response) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        // If too many wait already, this one waits for capacity.
        let asked = tokio::time::timeout_at(deadline, self.questions.send(Asked { request, answer })).await;
        asked.map_err(|_| Error::overloaded())?.map_err(|_| Error::lost())?;
        let response = tokio::time::timeout_at(deadline, response).await.map_err(|_| Error::overdue())?;
        response.map_err(|_| Error::lost())?
    }
}

/// The task's state between calls.
struct Conversation {
    client: Client,
    asked: mpsc::Receiver<Asked>,
    /// The questions to send first over the next call.
    again: VecDeque<Asked>,
}

impl Conversation {
    /// Opens one call after the other, each when there is a question.
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.again.is_empty() {
                let Some(asked) = self.asked.recv().await else { return };
                self.again.push_back(asked);
            }
            let known = self.client.current_secret();
            match self.converse().await {
                Ok(()) => failures = 0,
                Err(error) if self.client.has_another(&error, known.as_ref()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.refuse(&error);
                    tokio::time::sleep(pause(failures).max(error.retry_after().unwrap_or_default())).await;
                }
            }
            // An asker past its deadline has gone, or will in a moment.
            self.again.retain(|asked| !asked.answer.is_closed());
        }
    }

    /// Answers with the call's error where a retry would fail in the same way: for the first
    /// question if it ended the call, for all if the caller's credential did.
    fn refuse(&mut self, error: &Error) {
        let count = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => 0,
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => self.again.len(),
            _ => 1,
        };
        for asked in self.again.drain(..count.min(self.again.len())) {
            // An asker that has gone needs no answer.
            let _ = asked.answer.send(Err(error.clone()));
        }
    }

    /// Sends questions and returns answers over one call until it ends; unanswered questions are
    /// kept for the next. `Ok` if something was answered.
    async fn converse(&mut self) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(2 * MOST);
        let mut raw = self.client.generated();
        let opened = raw.verify_stream(ReceiverStream::new(receiver));
        let opened = tokio::time::timeout(self.client.call_timeout(), opened).await;
        let opened = opened.map_err(|_| Error::overdue())?.map_err(|status| Error::of(&status))?;
        let mut answers = opened.into_inner();
        let mut waiting = std::mem::take(&mut self.again);
        let outcome = async {
            for asked in &waiting {
                send(&sender, asked)?;
            }
            self.exchange(&sender, &mut answers, &mut waiting).await
        };
        let outcome = outcome.await;
        self.again = waiting;
        outcome
    }

    async fn exchange(
        &mut self,
        sender: &mpsc::Sender<VerifyStreamRequest>,
        answers: &mut Streaming<VerifyStreamResponse>,
        waiting: &mut VecDeque<Asked>,
    ) -> Result<(), Error> {
        let patience = self.client.call_timeout();
        let mut received = Instant::now();
        let mut answered = false;
        loop {
            let silent = async {
                if waiting.is_empty() {
                    std::future::pending::<()>().await;
                } else {
                    tokio::time::sleep_until(received + patience).await;
                }
            };
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(VerifyStreamResponse { response: Some(response) })) => {
                        let asked = waiting.pop_front().ok_or_else(|| Error::answer("question"))?;
                        let _ = asked.answer.send(response.try_into());
                        received = Instant::now();
                        answered = true;
                    }
                    Ok(Some(VerifyStreamResponse { response: None })) => return Err(Error::answer("response")),
                    Ok(None) => return Err(Error::lost()),
                    // The next call shows whether it was more than the end of this one.
                    Err(status) => {
                        let error = Error::of(&status);
                        let passing = error.kind() == ErrorKind::Unavailable;
                        return if answered && passing { Ok(()) } else { Err(error) };
                    }
                },
                asked = self.asked.recv(), if waiting.len() < MOST => {
                    let Some(asked) = asked else { return Ok(()) };
                    if waiting.is_empty() {
                        received = Instant::now();
                    }
                    // Added to the waiting ones first: if it cannot be sent, it is asked again.
                    let sent = send(sender, &asked);
                    waiting.push_back(asked);
                    sent?;
                }
                // The askers have been answered by their own deadlines.
                () = silent => return Err(Error::overdue()),
            }
        }
    }
}

/// Sends a question; there is capacity, since at most so many wait.
fn send(sender: &mpsc::Sender<VerifyStreamRequest>, asked: &Asked) -> Result<(), Error> {
    let request = Some(asked.request.clone());
    sender.try_send(VerifyStreamRequest { request }).map_err(|_| Error::lost())
}
