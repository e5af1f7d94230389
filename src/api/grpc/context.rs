//! What every RPC of the service shares: the engine, the use cases, who calls, what is bounded and counted. Made by
//! the server.

use std::sync::Arc;

use super::MAX_REQUEST_BYTES;
use super::server::token_service_server::TokenServiceServer;
use crate::admission::fair_limiter::{ClientKey, FairLimiter};
use crate::admission::response_memory::ResponseMemory;
use crate::auth::callers::Callers;
use crate::changefeed::hub::Hub;
use crate::metrics::Metrics;
use crate::secret::CurrentKeyring;
use crate::telemetry::Sampling;
use crate::tokens::Actions;
use crate::verify::Engine;

/// Serves `tokend.v1.TokenService`.
#[derive(Debug)]
pub struct TokenApi {
    /// Knows secrets.
    pub engine: Arc<Engine>,
    /// Does the rest.
    pub actions: Arc<Actions>,
    /// Knows who calls.
    pub callers: Arc<Callers>,
    /// Places for calls that take waiting.
    pub places: FairLimiter<ClientKey>,
    /// Room for long answers.
    pub response_memory: Arc<ResponseMemory>,
    /// Which calls' spans are exported.
    pub sampling: Sampling,
    /// Tells what changes.
    pub hub: Arc<Hub>,
    /// Authenticates watchers' positions.
    pub keyring: Arc<CurrentKeyring>,
    /// Counts calls.
    pub metrics: Arc<Metrics>,
}

impl TokenApi {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn server(self: &Arc<Self>) -> TokenServiceServer<Self> {
        TokenServiceServer::from_arc(Arc::clone(self)).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}
