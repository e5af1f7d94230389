//! The way of Verify and `VerifyStream` past the router and the codec, which cost as much as all that a warm answer
//! needs: their messages are read and written here. Whatever is not of the plain shape goes the common way, which knows
//! all shapes. Built by the server, asked by `serve`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use prost::bytes::{Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use tonic::service::Routes;

mod answer;
mod message;
mod messages;
mod methods;
mod once;
mod refusal;
mod verdicts;

use self::answer::{Answer, CONTENT_TYPE};
use self::message::announced;
use self::messages::Messages;
pub use self::methods::Methods;
use self::once::Read;
use self::verdicts::{Arriving, Verdicts};
use super::call::timeout;
use super::ending::Ending;
use super::error::CallError;
use super::proto::VerifyRequest;
use super::service::TokenApi;
use super::verify::Begun;
use super::{MAX_REQUEST_BYTES, status};
use crate::listener::Peer;
use crate::metrics::Rpc;
use crate::panics::{self, Panicked};
use crate::requests::{ConnectionRequests, ReadError, RequestLimiter, TooLong, Whole};

/// The paths of the RPCs that go this way.
const VERIFY: &str = "/tokend.v1.TokenService/Verify";
const VERIFY_STREAM: &str = "/tokend.v1.TokenService/VerifyStream";

/// How the path of every method of reflection begins, whose callers nobody knows.
const REFLECTION: &str = "/grpc.reflection.";

/// A message without content.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

/// The content types of gRPC with this contract's messages; of gRPC-Web, how they begin, and how they may go on.
const GRPC: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];
const GRPC_WEB: &[u8] = b"application/grpc-web";
const GRPC_WEB_KINDS: [&[u8]; 4] = [b"", b"+proto", b"-text", b"-text+proto"];
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers Verify and its stream by itself, and has the router answer all else.
#[derive(Debug)]
pub struct Direct {
    api: Arc<TokenApi>,
    routes: Routes,
    methods: Arc<Methods>,
    requests: RequestLimiter,
    /// Whether gRPC-Web is spoken.
    web: bool,
}

impl Direct {
    /// Puts the way past the router in front of it.
    #[must_use]
    pub fn new(
        api: Arc<TokenApi>,
        routes: Routes,
        methods: Methods,
        requests: RequestLimiter,
        web: bool,
    ) -> Self {
        Self { api, routes, methods: Arc::new(methods), requests, web }
    }

    /// Answers the calls of this peer, until their connection ends.
    pub(super) fn answering(&self, peer: Peer, ending: Ending) -> Answering {
        Answering {
            api: Arc::clone(&self.api),
            routes: self.routes.clone(),
            methods: Arc::clone(&self.methods),
            requests: self.requests.connection(peer.address.ip()),
            web: self.web,
            peer,
            ending,
        }
    }
}

/// What answers the calls of one connection. Shared by them alone: a count of shares that all cores write costs more
/// than a lookup.
pub(super) struct Answering {
    api: Arc<TokenApi>,
    routes: Routes,
    methods: Arc<Methods>,
    requests: Arc<ConnectionRequests>,
    web: bool,
    peer: Peer,
    ending: Ending,
}

/// What a request calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Grpc,
    Web,
    /// A browser asks whether a page may call.
    Preflight,
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
            _ => Box::pin(self.read(request)).await,
        }
    }

    /// Logs a panic outside of what `call` does, and counts what would not be counted.
    fn panicked(&self, is_verify: bool, panicked: Panicked) -> Status {
        let error = CallError::from(panicked);
        let status = Status::from(&error);
        status::log(&error, &status, None, None);
        if is_verify {
            self.api.metrics.calls.answered(Rpc::Verify, status.code().into(), Duration::ZERO);
        }
        status
    }

    /// Reads a request and has the router answer it. One of a method that there is not is not read.
    async fn read(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Status> {
        let kind = match self.kind(&request) {
            Ok(kind) => kind,
            Err(status) => return Ok(bare(status)),
        };
        let method = self.methods.get(request.uri().path());
        let (mut parts, mut body) = request.into_parts();
        match method {
            Some(method) if method.is_stream && kind == Kind::Grpc => {
                let is_open = parts.uri.path().starts_with(REFLECTION);
                let until = is_open.then(|| Box::pin(self.ending.clone().begun()) as Pin<Box<_>>);
                let messages = Messages::new(body, method.most, Arc::clone(&self.requests), until);
                self.route(Request::from_parts(parts, Body::new(messages))).await
            }
            Some(method) if kind != Kind::Preflight => {
                let read = self.read_whole(&mut parts, BytesMut::new(), &mut body, kind, method.most).await;
                match read {
                    Ok(whole) => self.route_whole(parts, whole).await,
                    Err(ReadError::TooLong(_)) if method.tells_too_long => {
                        parts.extensions.insert(TooLong);
                        self.route(Request::from_parts(parts, Body::new(Full::new(EMPTY)))).await
                    }
                    Err(error) if kind == Kind::Web => Ok(unread(&error)),
                    Err(error) => Err(status::unread_request(&error)),
                }
            }
            _ => self.route(Request::from_parts(parts, Body::empty())).await,
        }
    }

    /// Reads a request of one message to its end, within the server's time for it and the call's own.
    async fn read_whole(
        &self,
        parts: &mut Parts,
        received: BytesMut,
        body: &mut Incoming,
        kind: Kind,
        most: usize,
    ) -> Result<Whole, ReadError> {
        let patience = self.requests.patience();
        let patience = timeout(&parts.headers).map_or(patience, |timeout| timeout.min(patience));
        // A second message is read and passed over, if it is short; in gRPC-Web, text may be longer by a third.
        let all = most.saturating_mul(2);
        let check = |received: &[u8]| match announced(received, most) {
            Err(_) if kind == Kind::Grpc => Err(ReadError::TooLong(most)),
            _ if received.len() > all => Err(ReadError::TooLong(most)),
            _ => Ok(()),
        };
        let reading = pin!(self.requests.read(parts, received, body, check));
        in_time(|| Some(patience), reading).await.unwrap_or(Err(ReadError::TooLate))
    }

    /// Has the router answer what was read whole, which keeps what it takes until then.
    async fn route_whole(self: &Arc<Self>, parts: Parts, whole: Whole) -> Result<Response<Answer>, Status> {
        let Whole { bytes, reservation: _until_answered } = whole;
        self.route(Request::from_parts(parts, Body::new(Full::new(bytes)))).await
    }

    /// Has the router answer.
    async fn route(self: &Arc<Self>, mut request: Request<Body>) -> Result<Response<Answer>, Status> {
        let timeout = timeout(request.headers());
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.ending.clone());
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
        let read = Read::of(&mut body).await.map_err(|error| Status::from_error(error.into()))?;
        match read.message() {
            Some(message) => self.judge(parts, message).await,
            None => Box::pin(self.verify_later(parts, read, body)).await,
        }
    }

    /// Answers Verify when its request has arrived whole, in whichever shape.
    async fn verify_later(
        self: &Arc<Self>,
        mut parts: Parts,
        read: Read,
        mut body: Incoming,
    ) -> Result<Response<Answer>, Status> {
        let received = read.bytes();
        drop(read);
        let whole = self.read_whole(&mut parts, received, &mut body, Kind::Grpc, MAX_REQUEST_BYTES).await;
        let whole = whole.map_err(|error| status::unread_request(&error))?;
        match message::read_only(&whole.bytes) {
            Some(message) => {
                let _until_answered = whole.reservation;
                self.judge(parts, message).await
            }
            None => self.route_whole(parts, whole).await,
        }
    }

    async fn judge(&self, parts: Parts, message: VerifyRequest) -> Result<Response<Answer>, Status> {
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
        request.extensions_mut().insert(self.ending.clone());
        let requests = Arc::clone(&self.requests);
        let request = tonic::Request::from_http(request.map(|body| Arriving::new(body, requests)));
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

impl Answering {
    /// Tells what a request calls itself; an error is the answer to one that is nothing that is spoken here. tonic reads
    /// any: so a page of anybody's could have a browser that holds a client certificate post a `text/plain`, for which
    /// browsers ask nobody. And what is answered in gRPC has HTTP's status 200, whatever it says.
    fn kind(&self, request: &Request<Incoming>) -> Result<Kind, StatusCode> {
        if self.web && request.method() == Method::OPTIONS {
            return Ok(Kind::Preflight);
        }
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_web = || kind.strip_prefix(GRPC_WEB).is_some_and(|rest| GRPC_WEB_KINDS.contains(&rest));
        let kind = if GRPC.contains(&kind) {
            Kind::Grpc
        } else if self.web && is_web() {
            Kind::Web
        } else {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        };
        if request.method() != Method::POST {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        Ok(kind)
    }
}

/// Answers what is not gRPC as HTTP has it (gRPC over HTTP/2, "Requests").
fn bare(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// Answers a page whose request was not read to its end.
fn unread(error: &ReadError) -> Response<Answer> {
    bare(match error {
        ReadError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ReadError::TooLate | ReadError::Body(_) => StatusCode::REQUEST_TIMEOUT,
        ReadError::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
    })
}
