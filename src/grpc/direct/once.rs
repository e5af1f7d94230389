//! A request of one message, whose frame is all that there is of it, as nearly all of Verify's are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tonic::body::Body;

use super::message;
use crate::grpc::proto::VerifyRequest;

/// The beginning of a body: its first frame, if it has any, and the second, if it has more. An empty one that only
/// says that the body has ended, as tonic's clients send it, is none.
pub(super) struct Read([Option<Frame<Bytes>>; 2]);

impl Read {
    /// Reads it.
    pub(super) async fn of<B: http_body::Body<Data = Bytes> + Unpin>(body: &mut B) -> Result<Self, B::Error> {
        let first = next(body).await?;
        let second = if first.is_some() && !body.is_end_stream() { next(body).await? } else { None };
        let ends =
            |frame: &Frame<Bytes>| body.is_end_stream() && frame.data_ref().is_some_and(Bytes::is_empty);
        let second = second.filter(|frame| !ends(frame));
        Ok(Self([first, second]))
    }

    /// Returns the message, if its frame is all that there is, and nothing is wrong with it.
    pub(super) fn message(&self) -> Option<VerifyRequest> {
        let [Some(first), None] = &self.0 else { return None };
        message::read_only(first.data_ref()?)
    }

    /// Puts what was read back before the rest.
    pub(super) fn resume(self, rest: Incoming) -> Body {
        Body::new(Resumed { read: self.0.into_iter().flatten().collect(), rest })
    }
}

async fn next<B: http_body::Body + Unpin>(body: &mut B) -> Result<Option<Frame<B::Data>>, B::Error> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose()
}

/// A body whose beginning was read already.
struct Resumed {
    read: VecDeque<Frame<Bytes>>,
    rest: Incoming,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A body as a connection hands it over: that it has ended is known with its last frame.
    struct Sent(VecDeque<Bytes>);

    impl http_body::Body for Sent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[tokio::test]
    async fn one_message_is_read_here_whether_it_ends_the_body_or_an_empty_frame_does() {
        let message = Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x");
        let (empty, half) = (Bytes::new(), Bytes::from_static(b"\0\0"));
        for (frames, expected) in [
            (&[&message][..], true),
            (&[&message, &empty], true),
            (&[&message, &half], false),
            (&[&message, &empty, &half], false),
            (&[&empty], false),
            (&[], false),
        ] {
            let mut body = Sent(frames.iter().map(|&frame| frame.clone()).collect());
            let read = Read::of(&mut body).await.unwrap();
            assert_eq!(read.message().is_some(), expected, "{frames:?}");
        }
    }
}
