//! The way of Verify and `VerifyStream` past the router and the codec, which cost as much as all that a warm answer
//! needs: their messages are read and written here. Whatever is not of the plain shape goes the common way, which knows
//! all shapes. Built by the server, asked by `serve`.

use std::sync::Arc;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderName, Method, Request, Response, StatusCode, Version, header};
use tonic::service::Routes;

mod answer;
mod message;
mod once;
mod verdicts;

use self::answer::{Answer, CONTENT_TYPE};
use self::once::Read;
use self::verdicts::{Arriving, Verdicts};
use super::proto::VerifyRequest;
use super::service::TokenApi;
use super::verify::Begun;
use crate::listener::Peer;

/// The paths of the RPCs that go this way.
const VERIFY: &str = "/tokend.v1.TokenService/Verify";
const VERIFY_STREAM: &str = "/tokend.v1.TokenService/VerifyStream";

/// How every content type of gRPC begins, gRPC-Web's too.
const GRPC: &[u8] = b"application/grpc";
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers Verify and its stream by itself, and has the router answer all else.
#[derive(Debug, Clone)]
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
#[derive(Debug)]
pub(super) struct Answering {
    api: Arc<TokenApi>,
    routes: Routes,
    peer: Peer,
}

impl Answering {
    /// Answers a call.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        match request.uri().path() {
            VERIFY if is_plain(&request) => self.verify(request).await,
            VERIFY_STREAM if is_plain(&request) => Box::pin(self.verify_stream(request)).await,
            _ if is_grpc(&request) => Box::pin(self.route(request.map(Body::new))).await,
            _ => unsupported(),
        }
    }

    /// Has the router answer.
    async fn route(&self, mut request: Request<Body>) -> Response<Answer> {
        request.extensions_mut().insert(self.peer.clone());
        let Ok(response) = self.routes.clone().call(request).await;
        response.map(Answer::Common)
    }

    async fn verify(&self, request: Request<Incoming>) -> Response<Answer> {
        let (parts, mut body) = request.into_parts();
        let read = match Read::of(&mut body).await {
            Ok(read) => read,
            Err(error) => return Status::from_error(error.into()).into_http(),
        };
        let Some(message) = read.message() else {
            return Box::pin(self.route(Request::from_parts(parts, read.resume(body)))).await;
        };
        match self.api.begin_verify(&parts.headers, Some(&self.peer), &message) {
            Begun::Answered(Ok(reply)) => Answer::from(&reply).respond(),
            Begun::Answered(Err(status)) => status.into_http(),
            begun => Box::pin(self.finish(begun, Request::from_parts(parts, message))).await,
        }
    }

    async fn finish(&self, begun: Begun, mut request: Request<VerifyRequest>) -> Response<Answer> {
        request.extensions_mut().insert(self.peer.clone());
        match self.api.finish_verify(begun, tonic::Request::from_http(request)).await {
            Ok(reply) => Answer::from(reply.get_ref()).respond(),
            Err(status) => status.into_http(),
        }
    }

    async fn verify_stream(&self, mut request: Request<Incoming>) -> Response<Answer> {
        request.extensions_mut().insert(self.peer.clone());
        let request = tonic::Request::from_http(request.map(Arriving::from));
        match self.api.answer_stream(request).await {
            Ok(answers) => Answer::Verdicts(Box::new(Verdicts::from(answers.into_inner()))).respond(),
            Err(status) => status.into_http(),
        }
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
