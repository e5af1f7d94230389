//! What callers can have done: one file a use case. Called by the gRPC and HTTP faces with domain types
//! and an authenticated caller; asks the store. Decides who may do what; knows no messages and no SQL.

use std::sync::Arc;

use crate::domain::page::PageTokenError;
use crate::domain::{AccessError, CredentialError, FieldError, Violations};
use crate::hashing::{HashPool, Overloaded};
use crate::secret::{DurableCost, DurableError, Keyring, Prefix};
use crate::store::{Store, StoreError};

pub mod bootstrap;
pub mod create;
pub mod get;
pub mod list;
pub mod revoke;

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The caller's credential was no longer good when the action was about to be done.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The caller may not do this.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The request's fields are wrong.
    #[error("the request has fields that are not valid")]
    Invalid(Violations),
    /// The page token is not one of this listing.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// There is no such token within the caller's reach.
    #[error("there is no such token")]
    NotFound,
    /// There is no place to hash in.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The database did not do it, or its outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret or its verifiers could not be made.
    #[error(transparent)]
    Minting(#[from] MintError),
}

impl ActionError {
    fn invalid(field: &str, error: &FieldError) -> Self {
        Self::Invalid(Violations::one(field, error))
    }
}

/// Why a secret could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Argon2id failed.
    #[error("the durable hash could not be computed")]
    Durable(#[from] DurableError),
    /// A field of the root token breaks its own rules.
    #[error("the root token is not valid")]
    RootToken(#[source] FieldError),
}

/// Does the actions of one server.
#[derive(Debug)]
pub struct Actions {
    store: Store,
    keyring: Arc<Keyring>,
    prefix: Prefix,
    durable_cost: DurableCost,
    hashing: HashPool,
}

impl Actions {
    /// Puts together what the actions need. `hashing` is for creation alone.
    #[must_use]
    pub fn new(
        store: Store,
        keyring: Arc<Keyring>,
        prefix: Prefix,
        durable_cost: DurableCost,
        hashing: HashPool,
    ) -> Self {
        Self { store, keyring, prefix, durable_cost, hashing }
    }
}
