//! A call as hyper drives it. Very many may wait at once, so the type is small; what has to wait is
//! on the heap and no larger than needed. If it panics, the call still gets a response.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use tonic::codegen::http::{Request, Response};

use super::dispatcher::{CallStart, Dispatcher, VERIFY, Waiting};
use super::response_body::ResponseBody;
use crate::runtime::panics;

/// A call to be answered.
pub(in crate::api::grpc) struct Call {
    dispatcher: Arc<Dispatcher>,
    is_verify: bool,
    state: State,
}

#[expect(clippy::large_enum_variant, reason = "a warm Verify is answered without another allocation")]
enum State {
    Arrived(Request<Incoming>),
    Waits(Waiting),
    Answered,
}

impl Call {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, request: Request<Incoming>) -> Self {
        let is_verify = request.uri().path() == VERIFY;
        Self { dispatcher, is_verify, state: State::Arrived(request) }
    }
}

impl Future for Call {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let step = match mem::replace(&mut this.state, State::Answered) {
            State::Arrived(request) => panics::catch(|| this.dispatcher.begin(request, context)),
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

impl Dispatcher {
    /// Starts to answer a call.
    pub(in crate::api::grpc) fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Call {
        Call::new(Arc::clone(self), request)
    }
}
