//! The messages about plans, to domain types and back, by pure functions. Called by the service alone. Each field that
//! breaks a rule is reported by its own name.

use super::fields::{optional, page_size, positive, timestamp};
use crate::api::proto;
use crate::api::proto::limit::Kind;
use crate::domain::plan::{Limit, LimitKind, LimitSubject, MAX_AMOUNT, MAX_LIMITS, OutageBehavior, Plan};
use crate::domain::plans::{PlanListing, StoredPlan};
use crate::domain::{FieldError, OrganizationId, PlanName, Violations};
use crate::tokens::plans::PlansPage;
use tokend_core::limits::{CalendarPeriod, Refill, RefillMode};

/// Reads a plan and its organization, which is the caller's choice.
pub(super) fn set_request(
    message: &proto::SetPlanRequest,
) -> Result<(Option<OrganizationId>, Plan), Violations> {
    let mut violations = Violations::default();
    let (organization_id, name) = named(&message.organization_id, &message.name, &mut violations);
    let limits = limits(&message.limits, &mut violations);
    let plan = (|| {
        let organization_id = organization_id.clone()?.unwrap_or_else(OrganizationId::default_organization);
        let (name, limits) = (name?, limits?);
        violations.take("limits", Plan::new(organization_id, name, limits))
    })();
    violations.finish(organization_id.zip(plan))
}

/// Reads which plan a request names.
pub(super) fn named_request(
    organization_id: &str,
    name: &str,
) -> Result<(Option<OrganizationId>, PlanName), Violations> {
    let mut violations = Violations::default();
    let (organization_id, name) = named(organization_id, name, &mut violations);
    violations.finish(organization_id.zip(name))
}

#[expect(clippy::option_option, reason = "a field that is not valid, and one that is not set")]
fn named(
    organization_id: &str,
    name: &str,
    violations: &mut Violations,
) -> (Option<Option<OrganizationId>>, Option<PlanName>) {
    let organization_id =
        violations.take("organization_id", optional(organization_id, OrganizationId::parse));
    (organization_id, violations.take("name", PlanName::parse(name)))
}

pub(super) fn list_request(message: &proto::ListPlansRequest) -> Result<(PlanListing, u32), Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let page_size = violations.take("page_size", page_size(message.page_size));
    violations.finish(organization_id.map(|organization_id| PlanListing { organization_id }).zip(page_size))
}

pub(super) fn list_response(page: PlansPage) -> proto::ListPlansResponse {
    proto::ListPlansResponse {
        plans: page.plans.iter().map(plan).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
    }
}

pub(super) fn plan(stored: &StoredPlan) -> proto::Plan {
    proto::Plan {
        updated_by: stored.updated_by.clone(),
        update_time: Some(timestamp(stored.update_time)),
        ..proto::Plan::from(&stored.plan)
    }
}

fn limits(messages: &[proto::Limit], violations: &mut Violations) -> Option<Vec<Limit>> {
    if messages.len() > MAX_LIMITS {
        const TOO_MANY: FieldError = FieldError::TooLong { limit: MAX_LIMITS, unit: "limits" };
        return violations.take("limits", Err(TOO_MANY));
    }
    // All of them, so that each that breaks a rule is named.
    let read: Vec<_> =
        messages.iter().enumerate().map(|(index, message)| limit(index, message, violations)).collect();
    read.into_iter().collect()
}

fn limit(index: usize, message: &proto::Limit, violations: &mut Violations) -> Option<Limit> {
    let field = |name: &str| format!("limits[{index}].{name}");
    let name = violations.take(&field("name"), PlanName::parse(&message.name));
    let per = violations.take(&field("per"), subject(message.per));
    let kind = match &message.kind {
        None => violations.take(&field("kind"), Err(FieldError::Rule("is required: choose rate or credits"))),
        Some(Kind::Rate(rate)) => self::rate(rate, &field, violations),
        Some(Kind::Credits(credits)) => self::credits(credits, &field, violations),
    };
    Some(Limit { name: name?, per: per?, kind: kind? })
}

fn rate(
    message: &proto::RateLimit,
    field: &dyn Fn(&str) -> String,
    violations: &mut Violations,
) -> Option<LimitKind> {
    const PERIOD: FieldError = FieldError::Rule("is not a whole number of seconds from 1 s to 31 days");
    let requests = violations.take(&field("rate.requests"), amount(message.requests, 1));
    let period = message.period.ok_or(FieldError::Required);
    let period = violations.take(
        &field("rate.period"),
        period.and_then(|given| {
            let whole = positive(given).filter(|period| period.subsec_nanoseconds() == 0);
            let bounds = time::Duration::SECOND..=crate::domain::plan::MAX_PERIOD;
            whole.filter(|period| bounds.contains(period)).ok_or(PERIOD)
        }),
    );
    let burst = violations.take(&field("rate.burst"), amount(message.burst, 0));
    let on_outage = violations.take(&field("rate.on_outage"), outage(message.on_outage));
    // What no single field breaks.
    let rate = LimitKind::rate(requests?, period?, burst?, on_outage?);
    violations.take(&field("rate"), rate)
}

fn credits(
    message: &proto::Credits,
    field: &dyn Fn(&str) -> String,
    violations: &mut Violations,
) -> Option<LimitKind> {
    let initial = violations.take(&field("credits.initial"), amount(message.initial, 0));
    let refill = match &message.refill {
        None => Some(None),
        Some(refill) => {
            let amount = violations.take(&field("credits.refill.amount"), amount(refill.amount, 1));
            let period = violations.take(&field("credits.refill.period"), period(refill.period));
            let mode = violations.take(&field("credits.refill.mode"), mode(refill.mode));
            (|| Some(Some(Refill { amount: amount?, period: period?, mode: mode? })))()
        }
    };
    let credits = LimitKind::credits(initial?, refill?);
    violations.take(&field("credits"), credits)
}

pub(super) fn amount(given: i64, least: i64) -> Result<i64, FieldError> {
    if (least..=MAX_AMOUNT).contains(&given) {
        return Ok(given);
    }
    Err(FieldError::Rule(if least > 0 { "is not between 1 and 2^53" } else { "is not between 0 and 2^53" }))
}

fn subject(number: i32) -> Result<LimitSubject, FieldError> {
    match proto::LimitSubject::try_from(number) {
        Ok(proto::LimitSubject::Token) => Ok(LimitSubject::Token),
        Ok(proto::LimitSubject::User) => Ok(LimitSubject::User),
        Ok(proto::LimitSubject::Organization) => Ok(LimitSubject::Organization),
        Ok(proto::LimitSubject::Unspecified) => Err(FieldError::Required),
        Err(_) => Err(FieldError::Rule("is not what a limit counts")),
    }
}

fn outage(number: i32) -> Result<OutageBehavior, FieldError> {
    match proto::OutageBehavior::try_from(number) {
        Ok(proto::OutageBehavior::Unspecified | proto::OutageBehavior::Deny) => Ok(OutageBehavior::Deny),
        Ok(proto::OutageBehavior::Admit) => Ok(OutageBehavior::Admit),
        Err(_) => Err(FieldError::Rule("is not an outage behavior")),
    }
}

fn period(number: i32) -> Result<CalendarPeriod, FieldError> {
    match proto::CalendarPeriod::try_from(number) {
        Ok(proto::CalendarPeriod::Hour) => Ok(CalendarPeriod::Hour),
        Ok(proto::CalendarPeriod::Day) => Ok(CalendarPeriod::Day),
        Ok(proto::CalendarPeriod::Week) => Ok(CalendarPeriod::Week),
        Ok(proto::CalendarPeriod::Month) => Ok(CalendarPeriod::Month),
        Ok(proto::CalendarPeriod::Year) => Ok(CalendarPeriod::Year),
        Ok(proto::CalendarPeriod::Unspecified) => Err(FieldError::Required),
        Err(_) => Err(FieldError::Rule("is not a calendar period")),
    }
}

fn mode(number: i32) -> Result<RefillMode, FieldError> {
    match proto::RefillMode::try_from(number) {
        Ok(proto::RefillMode::Unspecified | proto::RefillMode::Replace) => Ok(RefillMode::Replace),
        Ok(proto::RefillMode::Add) => Ok(RefillMode::Add),
        Err(_) => Err(FieldError::Rule("is not a refill mode")),
    }
}
