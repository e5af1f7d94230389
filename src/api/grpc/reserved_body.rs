//! Has long answers keep the room that they take until they are read. A page is made into bytes at once, since a
//! message of the same length takes more; what a stream tells takes its room along, piece by piece. Stands around
//! the service, whatever is spoken to it.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of what lies in memory"))]

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

use crate::admission::response_memory::{Reservation, holding};

/// What an answer's body is to hold; among the answer's extensions.
#[derive(Debug, Clone)]
pub(super) enum Holding {
    /// All of it holds this.
    Whole(Reservation),
    /// Each piece of it holds what lies here when it is made.
    Pieces(Rooms),
}

/// The rooms of messages that a stream has told, and that are not yet bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms(Arc<Mutex<Vec<Reservation>>>);

impl Rooms {
    pub(super) fn add(&self, room: Reservation) {
        self.lock().push(room);
    }

    fn take(&self) -> Vec<Reservation> {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reservation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service whose answers hold what they take.
#[derive(Debug, Clone)]
pub struct ReservedBody<S>(S);

impl<S> ReservedBody<S> {
    /// Stands around `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for ReservedBody<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for ReservedBody<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            match response.extensions_mut().remove() {
                None => Ok(response),
                Some(Holding::Whole(room)) => Ok(whole(response, room).await),
                Some(Holding::Pieces(rooms)) => Ok(response.map(|body| in_pieces(body, rooms))),
            }
        })
    }
}

/// Makes an answer of one message into bytes, for which nothing is waited.
async fn whole(response: Response<Body>, room: Reservation) -> Response<Body> {
    let (parts, mut body) = response.into_parts();
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        frames.push(frame.map(|frame| {
            frame.map_data(|data| {
                bytes += data.len();
                holding(&data, vec![room.clone()])
            })
        }));
    }
    room.shrink(bytes);
    Response::from_parts(parts, Body::new(StreamBody::new(tokio_stream::iter(frames))))
}

fn in_pieces(body: Body, rooms: Rooms) -> Body {
    Body::new(body.map_frame(move |frame| {
        let rooms = rooms.take();
        frame.map_data(|data| holding(&data, rooms))
    }))
}
