//! A client of tokend, for API tokens, and guards for services.
//!
//! [`Connection`] creates a [`Client`], which has a method for each call. A [`Verifier`] judges a
//! secret: by asking each time, with one call per request or one for all, or locally for as long
//! as it knows what has changed. A [`Guard`] is a tower layer that admits requests to any axum or
//! tonic service by a verifier's verdict, and puts a [`VerifiedToken`] into their extensions.
//!
//! The rules of judging are in `tokend-core`, which the server uses too.
//!
//! # Features
//!
//! | feature | by default | what it adds |
//! |---|---|---|
//! | `guard` | yes | `Guard`, for axum, tonic and other tower services |
//! | `local` | yes | `Verifier::local`, which judges locally |
//! | `tls-ring`, `tls-aws-lc` | the first | addresses with `https://`, by one of these libraries; ring where both are chosen |
//! | `tls-native-roots`, `tls-webpki-roots` | the first | the authorities to trust beside [`Connection::ca`]: the system's, or Mozilla's |
//! | `raw` | no | the generated client and its messages, whose types are tonic's and prost's |

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "guard", feature = "local"))]
#[doc = include_str!("../README.md")]
struct Readme;

mod address;
mod authorization;
mod client;
mod connection;
mod connection_error;
mod credential;
mod enums;
mod error;
mod events;
mod grant;
#[cfg(feature = "guard")]
mod guard;
mod limits;
#[cfg(feature = "local")]
mod local;
mod login;
mod multiplex;
#[cfg(any(feature = "guard", feature = "local"))]
mod outage;
mod pages;
mod plans;
mod policies;
mod portal;
mod random;
mod redact;
mod remote;
mod requests;
mod retry;
#[cfg(feature = "_tls")]
mod tls;
mod token;
mod usage;
mod users;
mod verification;
mod verifier;
mod watch;

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

/// The type of secrets in this API.
pub use secrecy;
/// The type of times in this API.
pub use time;

#[cfg(feature = "raw")]
pub use authorization::Authorization;
pub use client::Client;
#[cfg(feature = "raw")]
pub use client::RawClient;
pub use connection::{Connection, ConnectionError};
pub use credential::SourceError;
pub use enums::{Attribution, ChangeKind, ErrorReason, LimitKind, TokenEventKind};
pub use error::{Error, ErrorKind, FieldViolation};
pub use events::{EventListing, FieldChange, TokenEvent};
#[cfg(feature = "guard")]
pub use guard::{Guard, Guarded, GuardedBody, Refused, RuleError};
pub use limits::LimitStatus;
#[cfg(feature = "local")]
pub use local::{LocalConfig, LocalStatus};
pub use pages::{Page, Pages};
pub use plans::{CreditAddition, CreditSubject, StoredPlan, TokenLimits};
pub use policies::{Policy, PolicyBreach, Remedy, StoredPolicy};
pub use portal::{NewPortalSession, PortalLink};
pub use requests::{
    Changed, ConsoleLink, CreatedToken, EndOptions, Expiration, Listing, NewToken, RevocationTarget,
    RevokedToken, Rotation, TokenUpdate,
};
#[cfg(feature = "raw")]
pub use retry::Repeatable;
pub use token::TokenStatus;
pub use tokend_core::domain::grant::{Grant, Users};
pub use tokend_core::domain::plan::{Limit, LimitKind as LimitRule, LimitSubject, OutageBehavior, Plan};
pub use tokend_core::domain::token::LastRefusal;
pub use tokend_core::domain::{
    FieldError, Network, Networks, OrganizationId, OwnerKind, PlanName, Principal, Rule as PolicyRule, Scope,
    Scopes, Token, TokenState, UserId, Verdict,
};
pub use tokend_core::limits::{CalendarPeriod, Refill, RefillMode};
pub use tokend_core::secret::{Prefix, TokenId};
pub use usage::{TokenUsage, Usage, UsagePoint, UsageQuery, UsageStep, VerdictCounts};
pub use users::{User, UserListing, UserRef};
pub use verification::{Consistency, Verification, VerifiedToken, VerifyRequest};
pub use verifier::{Verifier, VerifierError};
pub use watch::{ChangeBatch, Changes, TokenChange};
