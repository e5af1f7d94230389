//! The verification engine: from the text of a secret to a verdict. Called by Verify and to authenticate
//! each caller; both parse, look up, compare, judge. A fresh cache answers without any wait; the rest is
//! read from Postgres. What cannot be determined is an error, never a verdict. Knows no gRPC and no SQL.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

mod cache;
mod cache_generation;
mod credential;
mod credential_cache;
mod engine;
mod fallback;
mod kept_records;
mod loader;
mod lookup;
pub mod mac_refresh;
mod pending_invalidation;
mod read_point;
mod read_queue;
mod spending;
mod status;
#[cfg(test)]
pub(crate) mod unconnected;
mod worker;

/// A module of its own, so that tests/model can replace it by loom's types.
mod sync {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64};
}

pub use crate::admission::fair_limiter::ClientKey;
use crate::admission::fair_limiter::Refused;
use crate::admission::hash_pool::Overloaded;
use crate::domain::{CredentialError, Reach, Record, Scope, Scopes, TokenState, Verdict};
use crate::limits::Spending;
use crate::secret::{DurableError, FormatError};
use crate::store::StoreError;

pub use crate::changefeed::freshness::Bounds;
pub use credential::Credential;
pub use credential_cache::CredentialCache;
pub use engine::{Engine, EngineConfig, PendingVerification, Prefetched};
pub use pending_invalidation::PendingInvalidation;
pub use read_point::ReadPoint;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// At most as old as the configured staleness.
    #[default]
    Bounded,
    /// Read from Postgres after the request arrived.
    Full,
}

/// What to check about a secret, besides whether it is valid.
#[derive(Debug, Clone)]
pub struct Criteria<'a> {
    /// The scopes that it must have.
    pub required: &'a Scopes,
    /// The tokens that the caller may learn about.
    pub reach: Reach<'a>,
    /// The address of the client that presented it, if known.
    pub client_ip: Option<IpAddr>,
    /// The client that is charged if the check is expensive.
    pub charged_to: ClientKey,
    /// How much a valid token spends of each limit of its plan; 0 only asks.
    pub cost: u32,
    /// The only limit to judge and spend; `None`: all of them.
    pub limit: Option<&'a str>,
}

/// The answer of Verify.
#[derive(Debug)]
pub struct Verification {
    /// The verdict.
    pub verdict: Verdict,
    /// The token and its state; only when the secret matched and is in reach.
    pub token: Option<(Record, TokenState)>,
    /// The required scopes that the token lacks.
    pub missing_scopes: Vec<Scope>,
    /// A database time; the answer is at least as new as this. `None` only for a malformed text, before
    /// the database was reached.
    pub as_of: Option<OffsetDateTime>,
    /// The limits that were judged; `None` for a token without a plan, and for verdicts that come before limits.
    pub spending: Option<Box<Spending>>,
}

impl Verification {
    fn bare(verdict: Verdict, as_of: Option<OffsetDateTime>) -> Self {
        Self { verdict, token: None, missing_scopes: Vec::new(), as_of, spending: None }
    }

    /// Returns whether a valid token has the limit that the request names, if it names one.
    fn has_limit(&self, criteria: &Criteria<'_>) -> bool {
        criteria.limit.is_none() || self.verdict != Verdict::Valid || self.spending.is_some()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The database could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database could not answer a query shared by several callers.
    #[error(transparent)]
    Shared(#[from] Arc<StoreError>),
    /// There are too many requests.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// This caller has used up its share, or all shares are taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The durable hash in the database is not one that this server may compute.
    #[error("the token's durable hash cannot be checked")]
    DurableHash(#[from] DurableError),
    /// The token is valid, but has no limit with the name of the request.
    #[error("the token has no limit with this name")]
    NoSuchLimit,
}

/// Why a caller was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The credential is not good.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is not known whether it is good.
    #[error(transparent)]
    Undetermined(#[from] VerdictError),
}

/// Why it is not known which token a secret proves.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The text is no secret.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It could not be determined.
    #[error(transparent)]
    Undetermined(#[from] VerdictError),
}
