//! The messages of a streaming request on their way to the router. They are passed on whole, so
//! that a partial message is counted and no more memory is reserved than has arrived.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Frame;
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tonic::Status;

use super::framing::announced;
use crate::admission::received::Received;
use crate::admission::request_memory::ConnectionRequests;
use crate::admission::request_reader::Unfinished;
use crate::api::status;

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a call whose request is a stream.
pub(super) struct Messages {
    body: Incoming,
    most: usize,
    received: Received,
    requests: Arc<ConnectionRequests>,
    waiting: Option<Unfinished>,
    /// Completes when the server ends. Only set for calls of unauthenticated clients, which would
    /// otherwise never end.
    server_end: Option<Ended>,
    ended: bool,
}

impl Messages {
    /// Reads messages of at most `most` bytes.
    pub(super) fn new(
        body: Incoming,
        most: usize,
        requests: Arc<ConnectionRequests>,
        server_end: Option<Ended>,
    ) -> Self {
        Self { body, most, received: Received::default(), requests, waiting: None, server_end, ended: false }
    }

    /// Takes the first message with its prefix, once it has arrived.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(length) = announced(self.received.start(), self.most)? else { return Ok(None) };
        if self.received.len() < length {
            return Ok(None);
        }
        self.waiting = None;
        Ok(Some(self.received.take(length)))
    }

    /// Waits for more data; ready, with the stream's status, if no more is waited for.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Status>> {
        let is_over = self.server_end.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready());
        if is_over {
            return Poll::Ready(None);
        }
        if self.received.is_empty() && self.server_end.is_none() {
            return Poll::Pending;
        }
        let waited = Unfinished::poll(&mut self.waiting, &self.requests, self.received.capacity(), context);
        // Between two messages an unauthenticated client's stream is complete, so it ends without an error.
        waited.map(|error| (!self.received.is_empty()).then(|| status::unread_request(&error)))
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while !this.ended {
            match this.take() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Err(status) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.received.append(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    let rest = std::mem::take(&mut this.received).into_bytes();
                    if !rest.is_empty() {
                        // The router reports what is wrong with it.
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
                Poll::Pending => match this.wait(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(error) => {
                        this.ended = true;
                        return Poll::Ready(error.map(Err));
                    }
                },
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
