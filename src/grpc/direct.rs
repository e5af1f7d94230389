//! Verify's way past the router and the codec, which cost as much as all that a warm answer needs: its request is
//! one frame and its answer is one, so both are read and written here. Whatever is not of this plain shape goes
//! the common way, which knows all shapes. Put in front of the router by the server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body as _;
use http_body::Frame;
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use tonic::service::Routes;

use super::MAX_REQUEST_BYTES;
use super::proto::VerifyRequest;
use super::reply::VerifyReply;
use super::service::TokenApi;

/// The path of the RPC that goes this way.
const PATH: &str = "/tokend.v1.TokenService/Verify";

/// What stands before each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
const UNCOMPRESSED: u8 = 0;

/// How every content type of gRPC begins, gRPC-Web's too.
const GRPC: &[u8] = b"application/grpc";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers Verify by itself, and has the router answer all else.
#[derive(Debug, Clone)]
pub struct Direct(Arc<Ways>);

/// What each call is given a share of: one count of shares, which all cores write, and not two.
#[derive(Debug)]
struct Ways {
    api: Arc<TokenApi>,
    routes: Routes,
}

impl Direct {
    /// Puts the way past the router in front of it.
    #[must_use]
    pub fn new(api: Arc<TokenApi>, routes: Routes) -> Self {
        Self(Arc::new(Ways { api, routes }))
    }
}

impl Service<Request<Body>> for Direct {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As the router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_plain(&request) {
            if !is_grpc(&request) {
                return Box::pin(ready(Ok(unsupported())));
            }
            return Box::pin(self.0.routes.clone().call(request));
        }
        let ways = Arc::clone(&self.0);
        Box::pin(async move { Ok(verify(&ways, request).await) })
    }
}

/// Tells whether a request is one of Verify's, by gRPC itself and uncompressed.
fn is_plain(request: &Request<Body>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_2
        && request.uri().path() == PATH
        && request.method() == Method::POST
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == CONTENT_TYPE)
        && !headers.contains_key(&ENCODING)
}

/// Tells whether a request calls itself gRPC, or asks for a page whether that may. tonic reads any: so a page of
/// anybody's could have a browser that holds a client certificate post a `text/plain`, for which browsers ask nobody.
fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.method() == Method::OPTIONS || kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC))
}

/// Answers what is not gRPC as the protocol has it (gRPC over HTTP/2, "Requests").
fn unsupported() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

async fn verify(ways: &Ways, request: Request<Body>) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    let read = match read(&mut body).await {
        Ok(read) => read,
        Err(status) => return status.into_http(),
    };
    let Some(message) = read.message() else {
        let body = Body::new(Resumed { read: read.0.into_iter().flatten().collect(), rest: body });
        let Ok(response) = ways.routes.clone().call(Request::from_parts(parts, body)).await;
        return response;
    };
    match ways.api.answer_verify(tonic::Request::from_http(Request::from_parts(parts, message))).await {
        Ok(reply) => answer(reply.get_ref()),
        Err(status) => status.into_http(),
    }
}

/// The beginning of a body: its first frame, if it has any, and the second, if it has more. An empty one that only
/// says that the body has ended, as tonic's clients send it, is none.
struct Read([Option<Frame<Bytes>>; 2]);

async fn read(body: &mut Body) -> Result<Read, Status> {
    let mut next = async || poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose();
    let first = next().await?;
    let second = if first.is_some() { next().await? } else { None };
    let ends = |frame: &Frame<Bytes>| body.is_end_stream() && frame.data_ref().is_some_and(Bytes::is_empty);
    let second = second.filter(|frame| !ends(frame));
    Ok(Read([first, second]))
}

impl Read {
    /// Returns the message, if its frame is all that there is, and nothing is wrong with it.
    fn message(&self) -> Option<VerifyRequest> {
        let [Some(first), None] = &self.0 else { return None };
        let (prefix, message) = first.data_ref()?.split_first_chunk::<PREFIX>()?;
        let [UNCOMPRESSED, length @ ..] = prefix else { return None };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        if length != message.len() || length > MAX_REQUEST_BYTES {
            return None;
        }
        VerifyRequest::decode(message).ok()
    }
}

/// Writes an answer as tonic does.
fn answer(reply: &VerifyReply) -> Response<Body> {
    let length = reply.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX + length);
    data.put_u8(UNCOMPRESSED);
    // An answer is as long as a record at most: some kilobytes.
    data.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    reply.encode_raw(&mut data);
    let mut response = Response::new(Body::new(Answered { data: Some(data.freeze()), ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// An answer's message, then its status.
struct Answered {
    data: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, OK);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A body whose beginning was read already.
struct Resumed {
    read: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body as a connection hands it over: that it has ended is known with its last frame.
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

    #[tokio::test]
    async fn one_message_is_read_here_whether_it_ends_the_body_or_an_empty_frame_does() {
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
            let mut body = Body::new(Sent(frames.iter().map(|&frame| frame.clone()).collect()));
            let read = read(&mut body).await.unwrap();
            assert_eq!(read.message().is_some(), expected, "{frames:?}");
        }
    }
}
