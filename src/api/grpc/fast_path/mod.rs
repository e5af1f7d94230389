//! Receives every call. Answers plain requests of Verify and `VerifyStream` without the router and the codec, which
//! cost as much as all else in a warm response. Any other request (compressed, in several frames, gRPC-Web, another
//! RPC) goes to tonic's router. Built by the server, called by `serve`.

use std::sync::Arc;

use tonic::service::Routes;

mod dispatcher;
mod framing;
mod method_table;
mod refusal;
mod request_future;
mod response_body;
mod streamed_request;
mod unary_request;
mod verify_stream;

use self::dispatcher::ConnectionDispatcher;
pub use self::method_table::Methods;
use self::refusal::RefusalMemory;
use super::token_api::TokenApi;
use crate::admission::request_memory::RequestLimiter;
use crate::api::drain::DrainSignal;
use crate::auth::peer::Peer;

/// Answers Verify and its stream directly, and everything else by the router.
#[derive(Debug)]
pub struct CallDispatcher {
    api: Arc<TokenApi>,
    routes: Routes,
    methods: Arc<Methods>,
    requests: RequestLimiter,
    /// Whether gRPC-Web is supported.
    web: bool,
}

impl CallDispatcher {
    /// Puts the fast path in front of the router.
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

    /// Returns what answers this peer's calls on one connection.
    pub(super) fn for_connection(&self, peer: Peer, drain: DrainSignal) -> ConnectionDispatcher {
        ConnectionDispatcher {
            api: Arc::clone(&self.api),
            routes: self.routes.clone(),
            methods: Arc::clone(&self.methods),
            requests: self.requests.connection(peer.address.ip(), peer.credentials.authenticated()),
            web: self.web,
            refusals: Arc::new(RefusalMemory::new(
                Arc::clone(&self.api.context.response_memory),
                peer.address.ip(),
            )),
            peer,
            drain,
        }
    }
}
