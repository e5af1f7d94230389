//! `Verify` as tonic's generated code serves it, but with a pre-encoded response, so that each server
//! is measured only with its own work. Used by every role.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::bytes::{BufMut as _, Bytes};
use tokend::api::proto::VerifyRequest;
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers Verify.
pub(crate) trait Replies: Send + Sync + 'static {
    /// Returns the encoded response.
    fn reply(&self, request: VerifyRequest) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// The gRPC service.
#[derive(Debug)]
pub(crate) struct Canned<R>(Arc<R>);

impl<R> Canned<R> {
    pub(crate) fn new(replies: R) -> Self {
        Self(Arc::new(replies))
    }
}

impl<R> Clone for Canned<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> NamedService for Canned<R> {
    const NAME: &'static str = "tokend.v1.TokenService";
}

impl<R: Replies> Service<http::Request<Body>> for Canned<R> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let face = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/tokend.v1.TokenService/Verify" {
                return Ok(Status::new(Code::Unimplemented, "Verify alone").into_http());
            }
            Ok(Grpc::new(ReadyMade).unary(face, request).await)
        })
    }
}

impl<R: Replies> UnaryService<VerifyRequest> for Canned<R> {
    type Response = Bytes;
    type Future = Answering<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<VerifyRequest>) -> Self::Future {
        let face = self.clone();
        Box::pin(async move { face.0.reply(request.into_inner()).await.map(Response::new) })
    }
}

/// Decodes the request, and copies the response.
#[derive(Debug, Default)]
struct ReadyMade;

impl Codec for ReadyMade {
    type Encode = Bytes;
    type Decode = VerifyRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<VerifyRequest>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<VerifyRequest, VerifyRequest>::default().decoder()
    }
}

impl Encoder for ReadyMade {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, reply: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&reply);
        Ok(())
    }
}
