//! The verification engine: from the text of a secret to a verdict. Called by Verify and by every call that
//! authenticates its caller; both go the same way: parse, look up, compare, judge. A fresh cache answers
//! without waiting for anything; all else is read from Postgres. What cannot be found out is an error, never a
//! verdict. Knows no gRPC and no SQL.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

mod cache;
mod cache_generation;
mod credential;
mod credential_cache;
mod engine;
mod fallback;
mod loader;
mod lookup;
pub mod mac_refresh;
mod pending_invalidation;
mod read_point;
mod read_queue;
mod uses;
mod worker;

/// What the model checker replaces.
mod sync {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64};
}

pub use crate::admission::fair_limiter::ClientKey;
use crate::admission::fair_limiter::Refused;
use crate::admission::hash_pool::Overloaded;
use crate::domain::{CredentialError, Reach, Record, Scope, Scopes, TokenState, Verdict};
use crate::secret::{DurableError, FormatError};
use crate::store::StoreError;

pub use crate::changefeed::freshness::Bounds;
pub use credential::Credential;
pub use credential_cache::CredentialCache;
pub use engine::{Asked, Engine, EngineConfig, LookedAhead};
pub use pending_invalidation::PendingInvalidation;
pub use read_point::ReadPoint;
pub use uses::Uses;

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// At most as old as the configured staleness.
    #[default]
    Bounded,
    /// Read from Postgres after the question arrived.
    Full,
}

/// What is asked of a secret, beside whether it is one.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// What it has to allow.
    pub required: &'a Scopes,
    /// Whose tokens may be told about.
    pub reach: Reach<'a>,
    /// Where the client is that presented it, as far as that is known.
    pub client_ip: Option<IpAddr>,
    /// Who is charged when it is expensive to find out.
    pub share: ClientKey,
}

/// What Verify answers.
#[derive(Debug)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The token and its state; only when the secret matched and is in reach.
    pub token: Option<(Record, TokenState)>,
    /// The required scopes that the token lacks.
    pub missing_scopes: Vec<Scope>,
    /// The database's time that the answer is at least as new as; `None` only for a text that decides by
    /// itself, before the database was reached.
    pub as_of: Option<OffsetDateTime>,
}

impl Answer {
    fn bare(verdict: Verdict, as_of: Option<OffsetDateTime>) -> Self {
        Self { verdict, token: None, missing_scopes: Vec::new(), as_of }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The database could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database could not tell anyone who asked with the same query.
    #[error(transparent)]
    Shared(#[from] Arc<StoreError>),
    /// Too many are asking.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// This caller is asking for more than its share, or all shares are taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The durable verifier that the database holds is not one that this server may compute.
    #[error("the token's durable hash cannot be checked")]
    DurableHash(#[from] DurableError),
}

/// Why a caller was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The credential is not good.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Whether it is good could not be found out.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// Why it is not told which token a secret proves.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The text is no secret.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It could not be found out.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}
