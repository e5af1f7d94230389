//! The actions of callers, one file each. Called by the gRPC and HTTP APIs with domain types
//! and an authenticated caller; uses the store. Decides who may do what; knows no protobuf messages and
//! no SQL.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::admission::fair_limiter::{ClientKey, FairLimiter, Refused};
use crate::admission::hash_pool::{HashPool, Overloaded};
use crate::domain::page::PageTokenError;
use crate::domain::plans::PlanUse;
use crate::domain::policy::Rule;
use crate::domain::root::LastRootError;
use crate::domain::{
    AccessError, Caller, CredentialError, Expiration, FieldError, Permission, PlanName, Token, Violations,
};
use crate::secret::{CurrentKeyring, DurableCost, DurableError, Prefix, TokenId};
use crate::store::{Store, StoreError, TransactionError};

pub mod bootstrap;
pub mod console_link;
pub mod create;
pub mod credits;
pub mod disable;
pub mod enforcement;
pub mod events;
pub mod family;
pub mod get;
pub mod limits;
pub mod list;
pub mod login;
mod mint;
pub mod plans;
pub mod policy;
pub mod portal;
pub mod repeat;
mod request;
pub mod reuse;
pub mod revoke;
pub mod rotate;
mod store_access;
pub mod update;
pub mod usage;
pub mod users;

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The caller's credential was no longer valid when the action was to be executed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The caller may not do this.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Fields of the request are not valid.
    #[error("the request has fields that are not valid")]
    Invalid(Violations),
    /// The page token does not belong to this listing.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// No such token exists within the caller's reach.
    #[error("there is no such token")]
    NotFound,
    /// The token's state does not allow this.
    #[error(transparent)]
    State(#[from] StateError),
    /// It would end the last active root token.
    #[error(transparent)]
    LastRoot(#[from] LastRootError),
    /// The organization's policy forbids it.
    #[error(transparent)]
    Policy(#[from] Rule),
    /// The organization has no plan with the name that a token was to get.
    #[error("the organization has no plan {:?}; set it with SetPlan first", .0.as_str())]
    NoSuchPlan(PlanName),
    /// The organization has no such plan.
    #[error("the organization has no such plan")]
    PlanNotFound,
    /// The organization's policy names the plan.
    #[error("the plan is the default_plan of the organization's policy")]
    PlanIsDefault,
    /// Tokens that have not ended name the plan.
    #[error("{0}")]
    PlanInUse(PlanUse),
    /// No link to the console can be made.
    #[error(transparent)]
    NoLink(#[from] console_link::NoLink),
    /// The request id was used for another request.
    #[error("the request_id was used for another request")]
    RequestIdReused,
    /// The request was completed, but its result cannot be returned again: the key of its secret is no
    /// longer in the ring, or the token was deleted.
    #[error(
        "this request created the token {0}, but its secret cannot be shown again; revoke it and create \
         another one"
    )]
    Unrepeatable(TokenId),
    /// The queue of the hash pool is full.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The caller has more work waiting than its share, or all shares are taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The database did not execute it, or the outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret or its verifiers could not be computed.
    #[error(transparent)]
    Minting(#[from] MintError),
}

impl ActionError {
    fn invalid(field: &str, error: &FieldError) -> Self {
        Self::Invalid(Violations::one(field, error))
    }
}

impl ActionError {
    /// Returns whether the database aborted a transaction that may succeed when it runs again.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

impl From<TransactionError> for ActionError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Store(error) => error.into(),
            TransactionError::Credential(error) => error.into(),
            TransactionError::LastRoot(error) => error.into(),
        }
    }
}

/// Why a token's state forbids a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is revoked.
    #[error("the token is revoked")]
    Revoked,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is disabled.
    #[error("the token is disabled")]
    Disabled,
    /// Its user is disabled.
    #[error("the user is disabled")]
    UserDisabled,
    /// It was rotated before.
    #[error("the token was rotated already; its successor is {0}")]
    Rotated(TokenId),
}

/// Why a secret could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The operating system gave no randomness.
    #[error("the operating system returned no random numbers")]
    Randomness(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ring has no key to derive a secret from.
    #[error("the keyring has no key to derive a secret from")]
    NoKey,
    /// Argon2id failed.
    #[error("the durable hash could not be computed")]
    Durable(#[from] DurableError),
    /// A field of the root token is not valid.
    #[error("the root token is not valid")]
    RootToken(#[source] FieldError),
}

/// Executes the actions of one server.
#[derive(Debug)]
pub struct Actions {
    admission: store_access::StorePermits,
    keyring: Arc<CurrentKeyring>,
    prefix: Prefix,
    durable_cost: DurableCost,
    hashing: HashPool,
    creations: FairLimiter<ClientKey>,
    request_locks: crate::admission::keyed_mutex::KeyedMutex,
}

impl Actions {
    /// Combines the dependencies of the actions. `hashing` is only for creation.
    #[must_use]
    pub fn new(
        store: Store,
        keyring: Arc<CurrentKeyring>,
        prefix: Prefix,
        durable_cost: DurableCost,
        hashing: HashPool,
    ) -> Self {
        let creations = FairLimiter::new(hashing.slots());
        let admission = store_access::StorePermits::new(store);
        Self {
            admission,
            keyring,
            prefix,
            durable_cost,
            hashing,
            creations,
            request_locks: crate::admission::keyed_mutex::KeyedMutex::new(),
        }
    }
}

/// Returns a token that the caller may change, in its transaction: it is in reach, and the caller has
/// its reserved scopes.
fn manageable<'a>(caller: &Caller, token: Option<&'a Token>) -> Result<&'a Token, ActionError> {
    let extent = caller.extent(Permission::WriteOwn)?;
    let token = token.filter(|token| extent.includes(token)).ok_or(ActionError::NotFound)?;
    caller.may_manage(token)?;
    Ok(token)
}

/// Checks that a token whose grant or scopes were chosen can have them together.
fn check_grant(token: &Token) -> Result<(), ActionError> {
    let Some(grant) = &token.grant else { return Ok(()) };
    grant.suits(token.scopes.reserved()).map_err(|error| ActionError::invalid("grant", &error))
}

/// Resolves the choice of an expiration at `now`; the error names the field that is not valid.
fn resolve(expiration: Expiration, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, ActionError> {
    expiration.resolve(now).map_err(|error| {
        let field = match expiration {
            Expiration::At(_) => "expire_time",
            Expiration::After(_) => "ttl",
            Expiration::Never => "no_expiration",
        };
        ActionError::invalid(field, &error)
    })
}
