//! Limits the open calls of a service, fairly among peers: without a credential, each peer could
//! hold responses that it does not read. Wraps reflection and health.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use crate::admission::fair_limiter::FairLimiter;
use crate::api::error::CallError;
use crate::auth::peer::Peer;
use crate::verify::ClientKey;

/// A service with a limit of open calls.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit<S> {
    inner: S,
    limiter: FairLimiter<ClientKey>,
}

impl<S> ConcurrencyLimit<S> {
    /// Wraps `service`; all services with the same limiter share its permits.
    pub fn new(service: S, limiter: FairLimiter<ClientKey>) -> Self {
        Self { inner: service, limiter }
    }
}

impl<S: NamedService> NamedService for ConcurrencyLimit<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for ConcurrencyLimit<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let permit = match self.limiter.take(ClientKey::peer(peer)) {
            Ok(permit) => permit,
            Err(refused) => {
                return Box::pin(ready(Ok(Status::from(&CallError::from(refused)).into_http())));
            }
        };
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answered = answering.await?;
            Ok(answered.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_end = &permit;
                    frame
                }))
            }))
        })
    }
}
