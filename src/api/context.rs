//! What all APIs of the server share: the engine, the actions, authentication, limits and metrics.
//! Built once by the server; gRPC and the integrations hold a clone each, beside what is theirs alone.

use std::sync::Arc;

use crate::admission::fair_limiter::{ClientKey, FairLimiter};
use crate::admission::response_memory::ResponseMemory;
use crate::auth::callers::Callers;
use crate::metrics::Metrics;
use crate::telemetry::Sampling;
use crate::tokens::Actions;
use crate::verify::Engine;

/// What every call needs, independent of its protocol. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Context {
    /// Verifies secrets.
    pub engine: Arc<Engine>,
    /// Runs all other actions.
    pub actions: Arc<Actions>,
    /// Authenticates callers.
    pub callers: Arc<Callers>,
    /// Permits for calls that have to wait.
    pub call_permits: FairLimiter<ClientKey>,
    /// Memory for responses.
    pub response_memory: Arc<ResponseMemory>,
    /// Selects the calls whose spans are exported.
    pub sampling: Sampling,
    /// Counts calls.
    pub metrics: Arc<Metrics>,
}
