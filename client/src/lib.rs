//! Asks tokend about API tokens, and guards services by them.
//!
//! [`Connection`] makes a [`Client`], which has a method for each call. A [`Verifier`] tells what a secret is good for:
//! by asking each time, over a call of its own or one for all, or by itself for as long as it knows what has changed.
//! A [`Guard`] is a tower layer that lets requests through to any axum or tonic service by what a verifier says, and
//! puts a [`VerifiedToken`] into their extensions.
//!
//! ```no_run
//! # use tokend_client::{Connection, Guard, LocalConfig, Verifier};
//! # fn build(secret: secrecy::SecretString) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Connection::to("https://tokend.example.org:50051").secret(secret).open()?;
//! let verifier = Verifier::local(client, LocalConfig::default());
//! let guard = Guard::new(verifier).require(["repo:read"])?;
//! # Ok(())
//! # }
//! ```
//!
//! What is judged, and how, is `tokend-core`'s, which the server uses too.

mod address;
mod ambient;
mod authorization;
mod client;
mod connection;
mod error;
mod events;
mod guard;
mod local;
mod multiplex;
mod outage;
mod pages;
mod policies;
mod question;
mod requests;
mod retry;
mod token;
mod verifier;
mod watch;

#[path = "../../src/grpc/redact.rs"]
mod redact;

/// The contract's messages, for [`Client::raw`], and those of its enums that have no type of this crate's own.
#[expect(clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tokend.v1");
}

pub use authorization::Authorization;
pub use client::{Client, RawClient};
pub use connection::{Connection, ConnectionError};
pub use error::{Error, ErrorKind, FieldViolation};
pub use events::{EventListing, FieldChange, TokenEvent};
pub use guard::{Guard, Guarded, GuardedBody, RuleError};
pub use local::{LocalConfig, LocalStatus};
pub use pages::{Page, Pages};
pub use policies::{Policy, PolicyBreach, Remedy, StoredPolicy};
pub use question::{Answer, Consistency, Question, VerifiedToken};
pub use requests::{
    Changed, CreatedToken, Expiration, Listing, NewToken, RevocationTarget, RevokedToken, Rotation,
    TokenUpdate,
};
pub use retry::Repeatable;
pub use token::TokenStatus;
pub use tokend_core::domain::{
    FieldError, Network, Networks, OrganizationId, Principal, Rule as PolicyRule, Scope, Scopes, Token,
    TokenState, UserId, Verdict,
};
pub use tokend_core::secret::{Prefix, TokenId};
pub use verifier::Verifier;
pub use watch::{ChangeBatch, Changes, TokenChange};
