//! What every RPC of the service shares: the engine, the use cases, authentication, limits and
//! metrics. Built by the server.

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
    /// Verifies secrets.
    pub engine: Arc<Engine>,
    /// Runs all other use cases.
    pub actions: Arc<Actions>,
    /// Authenticates callers.
    pub callers: Arc<Callers>,
    /// Permits for calls that have to wait.
    pub places: FairLimiter<ClientKey>,
    /// Memory for responses.
    pub response_memory: Arc<ResponseMemory>,
    /// Selects the calls whose spans are exported.
    pub sampling: Sampling,
    /// Publishes changes of tokens.
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
