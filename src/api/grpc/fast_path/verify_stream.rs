//! `VerifyStream`'s messages: requests as they arrive, and responses, as many in a frame as are ready.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use prost::bytes::{Bytes, BytesMut};
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use super::framing::{self, Received};
use crate::admission::request_memory::ConnectionRequests;
use crate::admission::request_reader::Unfinished;
use crate::api::grpc::stream::{Batch, VerifyRequests, VerifyResponses};
use crate::api::proto::VerifyStreamRequest;
use crate::api::status;

/// The number of bytes from which responses are sent: with the last one they fit one frame (RFC
/// 9113, 4.2), unless that one is unusually long.
const FULL_FRAME_BYTES: usize = 15 * 1024;

/// The requests of a call.
pub(super) struct RequestStream {
    body: Incoming,
    received: Received,
    requests: Arc<ConnectionRequests>,
    /// Waits for the rest of a request that has begun to arrive.
    waiting: Option<Unfinished>,
    ended: bool,
}

impl RequestStream {
    pub(super) fn new(body: Incoming, requests: Arc<ConnectionRequests>) -> Self {
        Self { body, received: Received::default(), requests, waiting: None, ended: false }
    }

    /// Waits for the rest of a request, if one has begun.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.received.len() == 0 {
            return Poll::Pending;
        }
        let waited = Unfinished::poll(&mut self.waiting, &self.requests, self.received.len(), context);
        waited.map(|error| status::unread_request(&error))
    }
}

impl VerifyRequests for RequestStream {
    fn has_next(&self) -> bool {
        self.received.has_next()
    }
}

impl Stream for RequestStream {
    type Item = Result<VerifyStreamRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended {
            let request = this.received.take().transpose();
            this.ended = matches!(request, Some(Err(_)));
            if request.is_some() {
                this.waiting = None;
                return Poll::Ready(request);
            }
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                let error = ready!(this.wait(context));
                this.ended = true;
                return Poll::Ready(Some(Err(error)));
            };
            let error = match frame {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(data) => {
                        this.received.add(data);
                        continue;
                    }
                    None => None,
                },
                Some(Err(error)) => Some(Status::from_error(error.into())),
                None if this.received.len() == 0 => None,
                None => Some(status::cut_off()),
            };
            this.ended = true;
            // A cancelled call needs no responses.
            return Poll::Ready(error.filter(|error| !status::is_cancelled(error)).map(Err));
        }
        Poll::Ready(None)
    }
}

/// The responses of a call.
pub(in crate::api::grpc) struct Verdicts {
    answers: VerifyResponses<RequestStream>,
    /// The size of the last frame in bytes, used as an estimate for the next.
    last: usize,
    end: End,
}

/// What remains to be sent.
enum End {
    /// More responses.
    No,
    /// The status.
    Status(Status),
    /// Nothing.
    Sent,
}

impl From<VerifyResponses<RequestStream>> for Verdicts {
    fn from(answers: VerifyResponses<RequestStream>) -> Self {
        Self { answers, last: 0, end: End::No }
    }
}

impl Verdicts {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.end, End::Sent)
    }

    /// Returns what can be answered now as one frame; at the end, the status.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if matches!(self.end, End::No) {
            let frame = ready!(self.poll_answers(context));
            if !frame.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
        }
        match std::mem::replace(&mut self.end, End::Sent) {
            End::Status(status) => {
                let mut trailers = HeaderMap::new();
                let written = status.add_header(&mut trailers);
                Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
            }
            End::No | End::Sent => Poll::Ready(None),
        }
    }

    /// Answers until the frame is full or nothing more can be answered now; returns an empty frame
    /// at the end.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        let (mut batch, mut frame) = (Batch::default(), BytesMut::new());
        while frame.len() < FULL_FRAME_BYTES {
            match self.answers.poll_answer(context, &mut batch) {
                Poll::Ready(Some(Ok(answer))) => {
                    if frame.is_empty() {
                        frame.reserve(self.last);
                    }
                    framing::write(&answer, &mut frame);
                }
                Poll::Ready(Some(Err(status))) => {
                    self.end = End::Status(status);
                    break;
                }
                Poll::Ready(None) => {
                    self.end = End::Status(Status::ok(""));
                    break;
                }
                Poll::Pending if frame.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        self.answers.end_batch(&batch);
        self.last = frame.len();
        Poll::Ready(frame.freeze())
    }
}
