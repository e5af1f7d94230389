//! The bodies of responses: a verdict, a stream of verdicts, or a response of the router.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use prost::bytes::{Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, header};

use super::framing;
use super::refusal::RefusalMemory;
use super::verify_stream::Verdicts;
use crate::api::grpc::reply::VerifyReply;

/// The content type of gRPC.
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A response's body.
pub(in crate::api::grpc) enum ResponseBody {
    /// The message of a verdict, then its status.
    Verdict { data: Option<Bytes>, ended: bool },
    /// Verdicts as they become available, then a status.
    Verdicts { verdicts: Box<Verdicts>, refusals: Arc<RefusalMemory> },
    /// Any other response.
    Common { body: Body, refusals: Option<Arc<RefusalMemory>> },
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::Common { body: Body::default(), refusals: None }
    }
}

impl From<&VerifyReply> for ResponseBody {
    fn from(reply: &VerifyReply) -> Self {
        let mut data = BytesMut::new();
        framing::write(reply, &mut data);
        Self::Verdict { data: Some(data.freeze()), ended: false }
    }
}

impl ResponseBody {
    /// Builds the response's head as tonic does.
    pub(super) fn respond(self) -> Response<Self> {
        let mut response = Response::new(self);
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response
    }
}

type NextFrame = Option<Result<Frame<Bytes>, Status>>;

/// Reserves memory for a status, if the frame carries one.
fn held(mut frame: NextFrame, refusals: Option<&RefusalMemory>) -> NextFrame {
    if let (Some(Ok(frame)), Some(refusals)) = (&mut frame, refusals)
        && let Some(trailers) = frame.trailers_mut()
    {
        refusals.hold(trailers);
    }
    frame
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (data, ended) = match &mut *self {
            Self::Verdict { data, ended } => (data, ended),
            Self::Verdicts { verdicts, refusals } => {
                return verdicts.poll_frame(context).map(|frame| held(frame, Some(refusals)));
            }
            Self::Common { body, refusals } => {
                return Pin::new(body).poll_frame(context).map(|frame| held(frame, refusals.as_deref()));
            }
        };
        if let Some(data) = data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if mem::replace(ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, OK);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Verdict { ended, .. } => *ended,
            Self::Verdicts { verdicts, .. } => verdicts.has_ended(),
            Self::Common { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // A known length would be sent as a header, which gRPC does not use.
            Self::Verdict { .. } | Self::Verdicts { .. } => SizeHint::default(),
            Self::Common { body, .. } => body.size_hint(),
        }
    }
}
