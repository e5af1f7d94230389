//! Requests that set plans, for tests of any suite.

use tokend::api::proto::limit::Kind;
use tokend::api::proto::{Credits, Limit, LimitSubject, OutageBehavior, RateLimit, SetPlanRequest};

/// Returns a limit of this many requests a minute and token.
pub(crate) fn rate(name: &str, requests: i64) -> Limit {
    let period = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let on_outage = OutageBehavior::Deny.into();
    let rate = RateLimit { requests, period, burst: requests, on_outage };
    Limit { name: name.to_owned(), per: LimitSubject::Token.into(), kind: Some(Kind::Rate(rate)) }
}

/// Returns a limit of this many credits, which the organization's tokens share.
pub(crate) fn credits(name: &str, initial: i64) -> Limit {
    let kind = Some(Kind::Credits(Credits { initial, refill: None }));
    Limit { name: name.to_owned(), per: LimitSubject::Organization.into(), kind }
}

/// Returns a request that sets a plan.
pub(crate) fn plan(organization_id: &str, name: &str, limits: Vec<Limit>) -> SetPlanRequest {
    SetPlanRequest { organization_id: organization_id.to_owned(), name: name.to_owned(), limits }
}
