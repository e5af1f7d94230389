//! A request of one message in a single frame, as nearly all of Verify's are.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame};
use prost::bytes::{Bytes, BytesMut};

use super::framing;
use crate::api::proto::VerifyRequest;

/// What has arrived of a body: its first frame, if any, and the second, if there is more. An empty
/// frame that only ends the body, as tonic's clients send it, does not count.
pub(super) struct Read {
    frames: [Option<Frame<Bytes>>; 2],
    /// Whether the body has ended.
    ended: bool,
}

impl Read {
    /// Reads what has arrived, without waiting.
    pub(super) fn of<B>(body: &mut B, context: &mut Context<'_>) -> Result<Self, B::Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut read = Self { frames: [None, None], ended: false };
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => return Ok(read),
            Poll::Ready(None) => read.ended = true,
            Poll::Ready(Some(frame)) => {
                read.frames[0] = Some(frame?);
                read.ended = body.is_end_stream();
            }
        }
        if read.ended {
            return Ok(read);
        }
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => {}
            Poll::Ready(None) => read.ended = true,
            Poll::Ready(Some(frame)) => {
                let frame = frame?;
                read.ended = body.is_end_stream() && frame.data_ref().is_some_and(Bytes::is_empty);
                read.frames[1] = Some(frame).filter(|_| !read.ended);
            }
        }
        Ok(read)
    }

    /// Returns the message, if the body is one frame and holds one valid message.
    pub(super) fn message(&self) -> Option<VerifyRequest> {
        let ([Some(first), None], true) = (&self.frames, self.ended) else { return None };
        framing::read_only(first.data_ref()?)
    }

    /// Returns a copy of the bytes that have arrived.
    pub(super) fn bytes(&self) -> BytesMut {
        let data = self.frames.iter().flatten().filter_map(Frame::data_ref);
        let mut bytes = BytesMut::new();
        data.for_each(|data| bytes.extend_from_slice(data));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Waker;

    use super::*;

    /// A body as a connection delivers it: its end is known together with the last frame.
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

    #[test]
    fn one_message_is_read_with_or_without_a_trailing_empty_frame() {
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
            let read = Read::of(&mut body, &mut Context::from_waker(Waker::noop())).unwrap();
            assert_eq!(read.message().is_some(), expected, "{frames:?}");
        }
    }
}
