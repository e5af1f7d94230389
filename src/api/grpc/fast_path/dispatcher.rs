//! Answers the calls of one connection: Verify and its stream directly where nothing has to be
//! waited for, everything else by the router.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use tonic::service::Routes;

use super::framing::{self, announced};
use super::method_table::Methods;
use super::refusal::RefusalMemory;
use super::response_body::{CONTENT_TYPE, ResponseBody};
use super::streamed_request::Messages;
use super::unary_request::Read;
use super::verify_stream::{RequestStream, Verdicts};
use crate::admission::received::Received;
use crate::admission::request_memory::ConnectionRequests;
use crate::admission::request_reader::{ReadError, TooLong, Whole};
use crate::api::drain::DrainSignal;
use crate::api::error::CallError;
use crate::api::grpc::MAX_HEADERS;
use crate::api::grpc::call::timeout;
use crate::api::grpc::token_api::TokenApi;
use crate::api::grpc::verify::VerifyProgress;
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::proto::VerifyRequest;
use crate::api::status;
use crate::auth::peer::Peer;
use crate::metrics::Rpc;
use crate::runtime::panics::Panicked;

/// The paths of the RPCs that take the fast path.
pub(super) const VERIFY: &str = "/tokend.v1.TokenService/Verify";
const VERIFY_STREAM: &str = "/tokend.v1.TokenService/VerifyStream";

/// The path prefix of reflection, whose clients are unauthenticated.
const REFLECTION: &str = "/grpc.reflection.";

/// An empty message, with its prefix.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

/// The content types of gRPC with this contract's messages, and of gRPC-Web: the prefix and the
/// allowed suffixes.
const GRPC: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];
const GRPC_WEB: &[u8] = b"application/grpc-web";
const GRPC_WEB_KINDS: [&[u8]; 4] = [b"", b"+proto", b"-text", b"-text+proto"];
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers the calls of one connection. Not shared between connections: a reference count that all
/// cores write costs more than a lookup.
pub(in crate::api::grpc) struct ConnectionDispatcher {
    pub(super) api: Arc<TokenApi>,
    pub(super) routes: Routes,
    pub(super) methods: Arc<Methods>,
    pub(super) requests: Arc<ConnectionRequests>,
    pub(super) web: bool,
    pub(super) refusals: Arc<RefusalMemory>,
    pub(super) peer: Peer,
    pub(super) drain: DrainSignal,
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Grpc,
    Web,
    /// A CORS preflight: a browser asks whether a page may call.
    Preflight,
}

/// The state of a call after its first step.
pub(super) enum CallStart {
    /// Done, with its response.
    Answered(Result<Response<ResponseBody>, Status>),
    /// Still waiting; on the heap, and no larger than waiting needs.
    Waits(Waiting),
}

pub(super) type Waiting = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>;

/// What to do once a request has been read.
#[derive(Debug, PartialEq, Eq)]
enum AfterRead {
    Verify,
    Route,
    /// Like `Route`; but if the message is too long, the method at this path is called with an
    /// empty one and a mark.
    RouteTooLong(Box<Uri>),
}

impl ConnectionDispatcher {
    /// Starts a call; answers it if nothing has to be waited for.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: Request<Incoming>,
        context: &mut Context<'_>,
    ) -> CallStart {
        if request.headers().len() > MAX_HEADERS {
            return CallStart::Answered(Ok(bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
        }
        match request.uri().path() {
            VERIFY if is_plain(&request) => self.verify(request, context),
            VERIFY_STREAM if is_plain(&request) => {
                let (this, timeout) = (Arc::clone(self), timeout(request.headers()));
                let answering = Box::pin(this.verify_stream(request));
                self.open(async move { in_time(|| timeout, answering).await.flatten() })
            }
            _ => self.read(request),
        }
    }

    /// Reserves request memory for a streaming call until its response starts: until then its
    /// client may be unauthenticated.
    fn open(
        &self,
        answering: impl Future<Output = Result<Response<ResponseBody>, Status>> + Send + 'static,
    ) -> CallStart {
        match self.requests.open(0) {
            Ok(reservation) => CallStart::Waits(Box::pin(async move {
                let answered = answering.await;
                drop(reservation);
                answered
            })),
            Err(refused) => CallStart::Answered(Err(status::unread_request(&refused.into()))),
        }
    }

    /// Returns the response of a refused call.
    pub(super) fn refused(&self, status: Status) -> Response<ResponseBody> {
        let mut response = status.into_http();
        self.refusals.hold(response.headers_mut());
        response
    }

    /// Logs a panic outside of `call`, and counts the call if nothing else would.
    pub(super) fn panicked(&self, is_verify: bool, panicked: Panicked) -> Status {
        let error = CallError::from(panicked);
        let status = Status::from(&error);
        status::log(&error, &status, None, None);
        if is_verify {
            self.api.context.metrics.calls.answered(Rpc::Verify, status.code().into(), Duration::ZERO);
        }
        status
    }

    /// Reads a request and passes it to the router. The body is not read if the method does not exist.
    fn read(self: &Arc<Self>, request: Request<Incoming>) -> CallStart {
        let kind = match self.kind(&request) {
            Ok(kind) => kind,
            Err(status) => return CallStart::Answered(Ok(bare(status))),
        };
        let (this, method) = (Arc::clone(self), self.methods.get(request.uri().path()));
        let (parts, body) = request.into_parts();
        let request = match method {
            Some(method) if method.is_stream && kind == RequestKind::Grpc => {
                let is_open = parts.uri.path().starts_with(REFLECTION);
                let until = is_open.then(|| Box::pin(self.drain.clone().wait()) as Pin<Box<_>>);
                let messages = Messages::new(body, method.most, Arc::clone(&self.requests), until);
                let answering = Box::pin(this.route(Request::from_parts(parts, Body::new(messages))));
                return self.open(answering);
            }
            Some(method) if kind != RequestKind::Preflight => {
                let next = if method.reports_too_long {
                    AfterRead::RouteTooLong(Box::new(parts.uri.clone()))
                } else {
                    AfterRead::Route
                };
                let (parts, received) = (Box::new(parts), Received::default());
                let reading = PartialRequest { parts, received, body, kind, most: method.most };
                return this.wait_for(reading, next);
            }
            _ => Request::from_parts(parts, Body::empty()),
        };
        CallStart::Waits(Box::pin(this.route(request)))
    }

    /// Reads a request of one message to its end, within the server's timeout and the call's own,
    /// then answers it.
    fn wait_for(self: Arc<Self>, reading: PartialRequest, next: AfterRead) -> CallStart {
        let PartialRequest { parts, received, body, kind, most } = reading;
        let limit = self.requests.read_timeout();
        let limit = timeout(&parts.headers).map_or(limit, |timeout| timeout.min(limit));
        // A second message is read and ignored, if it is short; gRPC-Web text may be longer by a third.
        let all = most.saturating_mul(2);
        let check = move |received: &Received| match announced(received.start(), most) {
            Err(_) if kind == RequestKind::Grpc => Err(ReadError::TooLong(most)),
            _ if received.len() > all => Err(ReadError::TooLong(most)),
            _ => Ok(()),
        };
        let reading = Box::pin(Arc::clone(&self.requests).read(parts, received, body, check));
        CallStart::Waits(Box::pin(self.read_whole(reading, limit, kind, next)))
    }

    /// Waits until a request is read, then answers it. This future exists as long as the message is
    /// waited for, for many calls at once, so everything that is not needed for that is created later.
    async fn read_whole(
        self: Arc<Self>,
        reading: ReadingWhole,
        limit: Duration,
        kind: RequestKind,
        next: AfterRead,
    ) -> Result<Response<ResponseBody>, Status> {
        let read = in_time(|| Some(limit), reading).await.unwrap_or(Err(ReadError::TooLate));
        if let (Err(ReadError::TooLong(_)), AfterRead::RouteTooLong(path)) = (&read, &next) {
            let mut request = Request::new(Body::new(Full::new(EMPTY)));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = Uri::clone(path);
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.extensions_mut().insert(TooLong);
            return Box::pin(self.route(request)).await;
        }
        match read {
            Ok((parts, whole)) => Box::pin(self.answer_whole(parts, whole, next)).await,
            Err(error) if kind == RequestKind::Web => Ok(unread(&error)),
            Err(error) => Err(status::unread_request(&error)),
        }
    }

    /// Answers a request that was read whole, keeping its memory reservation until the response.
    async fn answer_whole(
        self: Arc<Self>,
        parts: Box<Parts>,
        whole: Whole,
        next: AfterRead,
    ) -> Result<Response<ResponseBody>, Status> {
        let Whole { bytes, reservation: _until_answered } = whole;
        if next == AfterRead::Verify
            && let Some(message) = framing::read_only(&bytes)
        {
            return match self.api.begin_verify(&parts.headers, Some(&self.peer), &message) {
                VerifyProgress::Answered(outcome) => Ok(ResponseBody::from(&outcome?).respond()),
                progress => Box::pin(self.finish(progress, *parts, message)).await,
            };
        }
        Box::pin(self.route(Request::from_parts(*parts, Body::new(Full::new(bytes))))).await
    }

    /// Has the router answer.
    async fn route(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        let timeout = timeout(request.headers());
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.drain.clone());
        let Ok(mut response) = in_time(|| timeout, self.routes.clone().call(request)).await?;
        self.refusals.hold(response.headers_mut());
        Ok(response.map(|body| ResponseBody::Common { body, refusals: Some(Arc::clone(&self.refusals)) }))
    }

    /// Answers Verify, if its request has arrived whole and nothing has to be waited for.
    fn verify(self: &Arc<Self>, mut request: Request<Incoming>, context: &mut Context<'_>) -> CallStart {
        let read = match Read::of(request.body_mut(), context) {
            Ok(read) => read,
            Err(error) => return CallStart::Answered(Err(Status::from_error(error.into()))),
        };
        let Some(message) = read.message() else {
            let received = Received::from(read.bytes());
            drop(read);
            let (parts, body) = request.into_parts();
            let (kind, most) = (RequestKind::Grpc, MAX_REQUEST_BYTES);
            let reading = PartialRequest { parts: Box::new(parts), received, body, kind, most };
            return Arc::clone(self).wait_for(reading, AfterRead::Verify);
        };
        match self.api.begin_verify(request.headers(), Some(&self.peer), &message) {
            VerifyProgress::Answered(outcome) => {
                CallStart::Answered(outcome.map(|reply| ResponseBody::from(&reply).respond()))
            }
            progress => {
                CallStart::Waits(Box::pin(Arc::clone(self).finish(progress, request.into_parts().0, message)))
            }
        }
    }

    async fn finish(
        self: Arc<Self>,
        progress: VerifyProgress,
        parts: Parts,
        message: VerifyRequest,
    ) -> Result<Response<ResponseBody>, Status> {
        let timeout = timeout(&parts.headers);
        let mut request = Request::from_parts(parts, message);
        request.extensions_mut().insert(self.peer.clone());
        let finishing = self.api.finish_verify(progress, tonic::Request::from_http(request));
        let reply = in_time(|| timeout, Box::pin(finishing)).await??;
        Ok(ResponseBody::from(reply.get_ref()).respond())
    }

    async fn verify_stream(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Status> {
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.drain.clone());
        let requests = Arc::clone(&self.requests);
        let request = tonic::Request::from_http(request.map(|body| RequestStream::new(body, requests)));
        let answers = self.api.answer_stream(request).await?.into_inner();
        let refusals = Arc::clone(&self.refusals);
        Ok(ResponseBody::Verdicts { verdicts: Box::new(Verdicts::from(answers)), refusals }.respond())
    }
}

type ReadingWhole = Pin<Box<dyn Future<Output = Result<(Box<Parts>, Whole), ReadError>> + Send>>;

/// A request of one message that has not arrived whole.
struct PartialRequest {
    parts: Box<Parts>,
    received: Received,
    body: Incoming,
    kind: RequestKind,
    /// The most bytes of its message.
    most: usize,
}

/// Runs part of a call and stops waiting at the call's deadline, after which the client no longer
/// waits for the response. The timeout is only read when there is something to wait for.
async fn in_time<T>(
    timeout: impl FnOnce() -> Option<Duration>,
    mut work: impl Future<Output = T> + Unpin,
) -> Result<T, Status> {
    let at_once = poll_fn(|context| Poll::Ready(Pin::new(&mut work).poll(context)));
    if let Poll::Ready(done) = at_once.await {
        return Ok(done);
    }
    match timeout() {
        // On the heap: calls that do not wait would otherwise carry its size.
        Some(timeout) => Box::pin(tokio::time::timeout(timeout, work)).await.map_err(|_| status::too_late()),
        None => Ok(work.await),
    }
}

/// Returns whether a request is plain gRPC, uncompressed.
fn is_plain(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == CONTENT_TYPE)
        && !headers.contains_key(&ENCODING)
}

impl ConnectionDispatcher {
    /// Returns a request's protocol; an error is the HTTP status for an unsupported one. tonic accepts any
    /// content type: a foreign page could then have a browser with a client certificate post `text/plain`,
    /// which browsers send without preflight. And a gRPC response always has HTTP status 200.
    fn kind(&self, request: &Request<Incoming>) -> Result<RequestKind, StatusCode> {
        if self.web && request.method() == Method::OPTIONS {
            return Ok(RequestKind::Preflight);
        }
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_web = || kind.strip_prefix(GRPC_WEB).is_some_and(|rest| GRPC_WEB_KINDS.contains(&rest));
        let kind = if GRPC.contains(&kind) {
            RequestKind::Grpc
        } else if self.web && is_web() {
            RequestKind::Web
        } else {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        };
        if request.method() != Method::POST {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        Ok(kind)
    }
}

/// Returns a plain HTTP response for what is not gRPC (gRPC over HTTP/2, "Requests").
fn bare(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// Returns the response to a page whose request was not read to its end.
fn unread(error: &ReadError) -> Response<ResponseBody> {
    bare(match error {
        ReadError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ReadError::TooLate | ReadError::Body(_) => StatusCode::REQUEST_TIMEOUT,
        ReadError::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
    })
}
