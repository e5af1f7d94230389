//! Has long responses keep their memory reservation until they are read. A page is encoded at once,
//! since its message takes more memory than its bytes; each message of a stream carries its own
//! reservation. Wraps the service for every protocol.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, StreamBody};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use crate::admission::response_memory::{Reservation, reserved_bytes};

/// What a response's body has to keep; stored in the response's extensions.
#[derive(Debug, Clone)]
pub(super) enum ResponseReservation {
    /// The whole body keeps this reservation.
    Whole(Reservation),
    /// Each frame keeps the reservations that are here when it is made.
    Pieces(MessageReservations),
}

/// The reservations of a stream's messages that are not encoded yet.
#[derive(Debug, Clone, Default)]
pub(super) struct MessageReservations(Arc<Mutex<Vec<Reservation>>>);

impl MessageReservations {
    pub(super) fn add(&self, reservation: Reservation) {
        self.lock().push(reservation);
    }

    fn take(&self) -> Vec<Reservation> {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reservation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service whose responses keep their memory reservations.
#[derive(Debug, Clone)]
pub struct ReservedBody<S>(S);

impl<S> ReservedBody<S> {
    /// Wraps `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for ReservedBody<S> {
    const NAME: &'static str = S::NAME;
}

type HttpResult = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for ReservedBody<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = HttpResult> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            match response.extensions_mut().remove() {
                None => Ok(response),
                Some(ResponseReservation::Whole(reservation)) => Ok(whole(response, reservation).await),
                Some(ResponseReservation::Pieces(reservations)) => {
                    Ok(response.map(|body| in_pieces(body, reservations)))
                }
            }
        })
    }
}

/// Encodes a response of one message; never waits.
async fn whole(response: Response<Body>, reservation: Reservation) -> Response<Body> {
    let (parts, mut body) = response.into_parts();
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        frames.push(frame.map(|frame| {
            frame.map_data(|data| {
                bytes += data.len();
                reserved_bytes(&data, vec![reservation.clone()])
            })
        }));
    }
    reservation.shrink(bytes);
    Response::from_parts(parts, Body::new(StreamBody::new(tokio_stream::iter(frames))))
}

fn in_pieces(body: Body, reservations: MessageReservations) -> Body {
    Body::new(body.map_frame(move |frame| {
        let reservations = reservations.take();
        frame.map_data(|data| reserved_bytes(&data, reservations))
    }))
}
