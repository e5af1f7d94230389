//! The rules of tokens as plain data and pure functions: what a token is, who may do what to it, and
//! what Verify answers about it. Knows no clock, no I/O, no SQL and no gRPC. Text from outside is
//! parsed into one of these types once, at the boundary, and trusted from then on.

pub mod access;
pub mod account;
pub mod fields;
pub mod grant;
pub mod login;
pub mod networks;
pub mod owner;
pub mod packed;
pub mod plan;
pub mod portal;
pub mod principal;
pub mod reach;
pub mod record;
pub mod rule;
pub mod scope;
pub mod text;
pub mod token;

pub use access::{AccessError, Bound, Caller, CredentialError, Extent, Permission};
pub use account::Account;
pub use fields::{
    Expiration, FieldError, Labels, OrganizationId, RevokeReason, TokenName, UserId, UserPrefix, Violation,
    Violations,
};
pub use grant::Grant;
pub use networks::{Network, Networks, PeerNetwork};
pub use owner::{Owner, OwnerKind};
pub use plan::{Limit, LimitKind, LimitSubject, MAX_LIMITS, OutageBehavior, PlanName};
pub use portal::{Portal, PortalTerms};
pub use principal::Principal;
pub use reach::Reach;
pub use record::{Judgement, Record, Verdict, judge};
pub use rule::Rule;
pub use scope::{ReservedScope, ReservedScopes, Scope, Scopes};
pub use token::{Token, TokenState};
