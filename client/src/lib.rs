//! Asks tokend about API tokens, and guards services by them.
//!
//! [`Connection`] makes a [`Client`], which has a method for each call. A [`Verifier`] tells what a secret is good for:
//! by asking each time, over a call of its own or one for all, or by itself for as long as it knows what has changed.
//! A [`Guard`] is a tower layer that lets requests through to any axum or tonic service by what a verifier says, and
//! puts a [`VerifiedToken`] into their extensions.
//!
//! What is judged, and how, is `tokend-core`'s, which the server uses too.

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod address;
mod ambient;
mod authorization;
mod client;
mod connection;
mod connection_error;
mod credential;
mod enums;
mod error;
mod events;
mod guard;
mod local;
mod multiplex;
mod outage;
mod pages;
mod policies;
mod question;
mod remote;
mod requests;
mod retry;
mod token;
mod verifier;
mod watch;

#[path = "../../src/api/redact.rs"]
mod redact;

mod generated {
    /// The contract's messages, for [`Client::raw`](crate::Client::raw).
    #[expect(clippy::pedantic, reason = "generated")]
    #[cfg_attr(
        not(feature = "raw"),
        expect(clippy::enum_variant_names, unreachable_pub, reason = "generated")
    )]
    pub mod proto {
        tonic::include_proto!("tokend.v1");
    }
}
#[cfg(not(feature = "raw"))]
use generated::proto;
#[cfg(feature = "raw")]
pub use generated::proto;

/// What secrets are given and returned as.
pub use secrecy;
/// What moments are given and returned as.
pub use time;

#[cfg(feature = "raw")]
pub use authorization::Authorization;
pub use client::Client;
#[cfg(feature = "raw")]
pub use client::RawClient;
pub use connection::{Connection, ConnectionError};
pub use credential::SourceError;
pub use enums::{ChangeKind, ErrorReason, TokenEventKind};
pub use error::{Error, ErrorKind, FieldViolation};
pub use events::{EventListing, FieldChange, TokenEvent};
pub use guard::{Guard, Guarded, GuardedBody, Refused, RuleError};
pub use local::{LocalConfig, LocalStatus};
pub use pages::{Page, Pages};
pub use policies::{Policy, PolicyBreach, Remedy, StoredPolicy};
pub use question::{Answer, Consistency, Question, VerifiedToken};
pub use requests::{
    Changed, CreatedToken, Expiration, Listing, NewToken, RevocationTarget, RevokedToken, Rotation,
    TokenUpdate,
};
#[cfg(feature = "raw")]
pub use retry::Repeatable;
pub use token::TokenStatus;
pub use tokend_core::domain::{
    FieldError, Network, Networks, OrganizationId, Principal, Rule as PolicyRule, Scope, Scopes, Token,
    TokenState, UserId, Verdict,
};
pub use tokend_core::secret::{Prefix, TokenId};
pub use verifier::{Verifier, VerifierError};
pub use watch::{ChangeBatch, Changes, TokenChange};
