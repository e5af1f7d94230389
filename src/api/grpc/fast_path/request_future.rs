//! A call as hyper drives it. Very many may wait at once, so the type is small; what has to wait is
//! on the heap and no larger than needed. If it panics, the call still gets a response.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use tonic::codegen::http::{Request, Response};

use super::dispatcher::{CallStart, ConnectionDispatcher, VERIFY, Waiting};
use super::response_body::ResponseBody;
use crate::admission::packed_head::PackedHead;
use crate::runtime::panics;

/// The headers of a head that is not packed. The table of more of them may be a hundred times as long as they are on the wire.
const FEW_HEADERS: usize = 16;

/// A call to be answered.
pub(in crate::api::grpc) struct RequestFuture {
    dispatcher: Arc<ConnectionDispatcher>,
    is_verify: bool,
    state: State,
}

// Not in a box: a warm Verify is answered without another allocation.
enum State {
    Arrived(Request<Incoming>),
    /// Its head is packed until all that has arrived is read.
    Packed(PackedHead, Incoming),
    Waits(Waiting),
    Answered,
}

impl RequestFuture {
    pub(super) fn new(dispatcher: Arc<ConnectionDispatcher>, request: Request<Incoming>) -> Self {
        let is_verify = request.uri().path() == VERIFY;
        let is_large = request.headers().len() > FEW_HEADERS;
        let state = if is_large && !dispatcher.peer.credentials.is_authenticated() {
            let (parts, body) = request.into_parts();
            State::Packed(parts.into(), body)
        } else {
            State::Arrived(request)
        };
        Self { dispatcher, is_verify, state }
    }
}

impl Future for RequestFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let step = match mem::replace(&mut this.state, State::Answered) {
            State::Arrived(request) => panics::catch(|| this.dispatcher.begin(request, context)),
            State::Packed(head, body) => {
                panics::catch(|| this.dispatcher.begin(Request::from_parts(*head.unpack(), body), context))
            }
            State::Waits(waiting) => Ok(CallStart::Waits(waiting)),
            State::Answered => return Poll::Pending,
        };
        let outcome = match step {
            Ok(CallStart::Answered(outcome)) => Ok(outcome),
            Ok(CallStart::Waits(mut waiting)) => match panics::catch(|| waiting.as_mut().poll(context)) {
                Ok(Poll::Pending) => {
                    this.state = State::Waits(waiting);
                    return Poll::Pending;
                }
                Ok(Poll::Ready(outcome)) => Ok(outcome),
                Err(panicked) => Err(panicked),
            },
            Err(panicked) => Err(panicked),
        };
        let outcome =
            outcome.unwrap_or_else(|panicked| Err(this.dispatcher.panicked(this.is_verify, panicked)));
        Poll::Ready(Ok(outcome.unwrap_or_else(|status| this.dispatcher.refused(status))))
    }
}

impl ConnectionDispatcher {
    /// Starts to answer a call.
    pub(in crate::api::grpc) fn answer(self: &Arc<Self>, request: Request<Incoming>) -> RequestFuture {
        RequestFuture::new(Arc::clone(self), request)
    }
}
