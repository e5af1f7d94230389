//! The way of Verify and `VerifyStream` past the router and the codec, which cost as much as all that a warm answer
//! needs: their messages are read and written here. Whatever is not of the plain shape goes the common way, which knows
//! all shapes. Built by the server, asked by `serve`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version, header};
use tonic::service::Routes;

mod answer;
mod message;
mod once;
mod refusal;
mod verdicts;

use self::answer::{Answer, CONTENT_TYPE};
use self::once::Read;
use self::verdicts::{Arriving, Verdicts};
use super::call::timeout;
use super::error::CallError;
use super::proto::VerifyRequest;
use super::service::TokenApi;
use super::status;
use super::verify::Begun;
use crate::listener::Peer;
use crate::metrics::Rpc;
use crate::panics::{self, Panicked};

/// The paths of the RPCs that go this way.
const VERIFY: &str = "/tokend.v1.TokenService/Verify";
const VERIFY_STREAM: &str = "/tokend.v1.TokenService/VerifyStream";

/// How every content type of gRPC begins, gRPC-Web's too.
const GRPC: &[u8] = b"application/grpc";
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers Verify and its stream by itself, and has the router answer all else.
#[derive(Debug)]
pub struct Direct {
    api: Arc<TokenApi>,
    routes: Routes,
}

impl Direct {
    /// Puts the way past the router in front of it.
    #[must_use]
    pub fn new(api: Arc<TokenApi>, routes: Routes) -> Self {
        Self { api, routes }
    }

    /// Answers the calls of this peer.
    pub(super) fn answering(&self, peer: Peer) -> Answering {
        Answering { api: Arc::clone(&self.api), routes: self.routes.clone(), peer }
    }
}

/// What answers the calls of one connection. Shared by them alone: a count of shares that all cores write costs more
/// than a lookup.
pub(super) struct Answering {
    api: Arc<TokenApi>,
    routes: Routes,
    peer: Peer,
}

impl Answering {
    /// Answers a call.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let is_verify = request.uri().path() == VERIFY;
        let refused = match panics::caught(self.choose(request)).await {
            Ok(Ok(response)) => return response,
            Ok(Err(status)) => status,
            Err(panicked) => self.panicked(is_verify, panicked),
        };
        let mut response = refused.into_http();
        self.hold_refusal(response.headers_mut());
        response
    }

    async fn choose(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Status> {
        match request.uri().path() {
            VERIFY if is_plain(&request) => self.verify(request).await,
            VERIFY_STREAM if is_plain(&request) => {
                let timeout = timeout(request.headers());
                in_time(|| timeout, Box::pin(self.verify_stream(request))).await.flatten()
            }
            _ if is_grpc(&request) => Box::pin(self.route(request.map(Body::new))).await,
            _ => Ok(unsupported()),
        }
    }

    /// Logs a panic outside of what `call` does, and counts what would not be counted.
    fn panicked(&self, is_verify: bool, panicked: Panicked) -> Status {
        let error = CallError::from(panicked);
        let status = Status::from(&error);
        status::log(&error, &status, None);
        if is_verify {
            self.api.metrics.calls.answered(Rpc::Verify, status.code().into(), Duration::ZERO);
        }
        status
    }

    /// Has the router answer.
    async fn route(self: &Arc<Self>, mut request: Request<Body>) -> Result<Response<Answer>, Status> {
        let timeout = timeout(request.headers());
        request.extensions_mut().insert(self.peer.clone());
        let Ok(mut response) = in_time(|| timeout, self.routes.clone().call(request)).await?;
        self.hold_refusal(response.headers_mut());
        Ok(response.map(|body| Answer::Common { body, answering: Some(Arc::clone(self)) }))
    }

    /// Has a status take room, until it is read.
    fn hold_refusal(&self, headers: &mut HeaderMap) {
        refusal::hold(headers, &self.api.unread, &self.peer);
    }

    async fn verify(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Status> {
        let (parts, mut body) = request.into_parts();
        let read = in_time(|| timeout(&parts.headers), pin!(Read::of(&mut body))).await?;
        let read = read.map_err(|error| Status::from_error(error.into()))?;
        let Some(message) = read.message() else {
            return Box::pin(self.route(Request::from_parts(parts, read.resume(body)))).await;
        };
        match self.api.begin_verify(&parts.headers, Some(&self.peer), &message) {
            Begun::Answered(outcome) => Ok(Answer::from(&outcome?).respond()),
            begun => {
                let timeout = timeout(&parts.headers);
                let finishing = self.finish(begun, Request::from_parts(parts, message));
                in_time(|| timeout, Box::pin(finishing)).await?
            }
        }
    }

    async fn finish(
        &self,
        begun: Begun,
        mut request: Request<VerifyRequest>,
    ) -> Result<Response<Answer>, Status> {
        request.extensions_mut().insert(self.peer.clone());
        let reply = self.api.finish_verify(begun, tonic::Request::from_http(request)).await?;
        Ok(Answer::from(reply.get_ref()).respond())
    }

    async fn verify_stream(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Answer>, Status> {
        request.extensions_mut().insert(self.peer.clone());
        let request = tonic::Request::from_http(request.map(Arriving::from));
        let answers = self.api.answer_stream(request).await?.into_inner();
        let answering = Arc::clone(self);
        Ok(Answer::Verdicts { verdicts: Box::new(Verdicts::from(answers)), answering }.respond())
    }
}

/// Does some work of a call, and gives up at the call's deadline what is still waited for then: nobody waits for its
/// answer. The timeout is asked for where there is anything to wait for.
async fn in_time<T>(
    timeout: impl FnOnce() -> Option<Duration>,
    mut work: impl Future<Output = T> + Unpin,
) -> Result<T, Status> {
    let at_once = poll_fn(|context| Poll::Ready(Pin::new(&mut work).poll(context)));
    if let Poll::Ready(done) = at_once.await {
        return Ok(done);
    }
    match timeout() {
        // On the heap: those that wait for nothing would carry its size.
        Some(timeout) => Box::pin(tokio::time::timeout(timeout, work)).await.map_err(|_| status::too_late()),
        None => Ok(work.await),
    }
}

/// Tells whether a request is gRPC itself, and uncompressed.
fn is_plain(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == CONTENT_TYPE)
        && !headers.contains_key(&ENCODING)
}

/// Tells whether a request calls itself gRPC, or asks for a page whether that may. tonic reads any: so a page of
/// anybody's could have a browser that holds a client certificate post a `text/plain`, for which browsers ask nobody.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.method() == Method::OPTIONS || kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC))
}

/// Answers what is not gRPC as the protocol has it (gRPC over HTTP/2, "Requests").
fn unsupported() -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
