//! The rules of tokens as plain data and pure functions: what a token is, who may do what to it, what Verify
//! answers. Called by all layers above; knows no clock, I/O, tokio, SQL or gRPC. Text from outside is parsed
//! into these types once, at the boundary, then trusted. Rules shared with clients come from `core/`.

pub mod audit_context;
pub mod certificate;
pub mod counted_users;
pub mod enforcement;
pub mod event;
pub mod page;
pub mod percent;
pub mod plans;
pub mod policy;
pub mod root;
pub mod session;
pub mod size;
pub mod usage;
pub mod users;

pub use tokend_core::domain::{
    access, account, fields, grant, login, networks, owner, packed, plan, portal, principal, reach, record,
    scope, text, token,
};

pub use access::{AccessError, Bound, Caller, CredentialError, Extent, Permission};
pub use account::Account;
pub use certificate::{CertificateMapping, CertificateMappings, SubjectName};
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
pub use scope::{ReservedScope, ReservedScopes, Scope, Scopes};
pub use token::{Token, TokenState};
