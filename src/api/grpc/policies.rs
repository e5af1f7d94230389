//! Policies' messages, to the domain and back, by pure functions. Called by the service alone.

use time::{Duration, OffsetDateTime};

use super::fields::{optional, scopes, timestamp};
use crate::api::proto;
use crate::api::proto::{
    CheckPolicyRequest, CheckPolicyResponse, EnforcePolicyResponse, GetPolicyResponse, PolicyBreach,
    UpdatePolicyRequest, UpdatePolicyResponse,
};
use crate::domain::enforcement::{Breach, Remedy};
use crate::domain::policy::{MAX_GRACE, Policy, StoredPolicy};
use crate::domain::{FieldError, OrganizationId, PlanName, Scope, Violations};
use crate::tokens::enforcement::BreachPage;

/// The longest lifetime that a policy may set: the maximum of `google.protobuf.Duration`.
const MAX_LIFETIME: Duration = Duration::seconds(315_576_000_000);

pub(super) fn update_request(
    message: UpdatePolicyRequest,
) -> Result<(Option<OrganizationId>, Policy), Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let policy = match message.policy {
        None => violations.take("policy", Err(FieldError::Required)),
        Some(message) => policy(&message, &mut violations),
    };
    violations.finish(organization_id.zip(policy))
}

pub(super) fn check_request(
    message: &CheckPolicyRequest,
) -> Result<(Option<OrganizationId>, Option<Policy>), Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let policy = match &message.policy {
        None => Some(None),
        Some(message) => policy(message, &mut violations).map(Some),
    };
    violations.finish(organization_id.zip(policy))
}

pub(super) fn check_response(page: BreachPage) -> CheckPolicyResponse {
    CheckPolicyResponse {
        breaches: page.breaches.iter().map(breach).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
    }
}

pub(super) fn enforce_response(
    (page, effective_time): (BreachPage, OffsetDateTime),
) -> EnforcePolicyResponse {
    EnforcePolicyResponse {
        breaches: page.breaches.iter().map(breach).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
        effective_time: Some(timestamp(effective_time)),
    }
}

fn breach(breach: &Breach) -> PolicyBreach {
    let (new_expire_time, removed_scopes, revoked) = match &breach.remedy {
        Remedy::Revoke(_) => (None, Vec::new(), true),
        Remedy::Narrow { expire_time, scopes } => (
            expire_time.map(timestamp),
            scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            false,
        ),
    };
    PolicyBreach {
        rules: breach.rules.iter().map(|rule| rule.word().to_owned()).collect(),
        token: Some((&breach.token, breach.judge_time).into()),
        new_expire_time,
        removed_scopes,
        revoked,
    }
}

fn policy(message: &proto::Policy, violations: &mut Violations) -> Option<Policy> {
    let lifetime = message.longest_lifetime.map(lifetime);
    let lifetime = violations.take("policy.longest_lifetime", lifetime.transpose());
    let grace = message.longest_grace.map(|given| whole_seconds(given, Duration::ZERO, MAX_GRACE));
    let grace = violations.take("policy.longest_grace", grace.transpose());
    let most = u32::try_from(message.most_active_tokens_per_user);
    let most = most.map_err(|_| FieldError::Rule("is negative"));
    let most = violations.take("policy.most_active_tokens_per_user", most);
    let allowed_scopes = scopes("policy.allowed_scopes", &message.allowed_scopes, violations);
    let default_plan =
        violations.take("policy.default_plan", optional(&message.default_plan, PlanName::parse));
    Some(Policy {
        longest_lifetime: lifetime?,
        expiration_required: message.expiration_required,
        longest_grace: grace?,
        most_active_tokens: most.map(|most| Some(most).filter(|most| *most > 0))?,
        allowed_scopes: allowed_scopes?,
        reuse_detection: message.reuse_detection,
        plan_required: message.plan_required,
        default_plan: default_plan?,
    })
}

/// Reads the longest time until an expiration.
pub(super) fn lifetime(given: prost_types::Duration) -> Result<Duration, FieldError> {
    whole_seconds(given, Duration::SECOND, MAX_LIFETIME)
}

fn whole_seconds(
    given: prost_types::Duration,
    shortest: Duration,
    longest: Duration,
) -> Result<Duration, FieldError> {
    let duration = Duration::seconds(given.seconds);
    if given.nanos == 0 && (shortest..=longest).contains(&duration) {
        Ok(duration)
    } else {
        Err(FieldError::Rule("is not a number of whole seconds within its bounds"))
    }
}

pub(super) fn get_response((organization_id, stored): (OrganizationId, StoredPolicy)) -> GetPolicyResponse {
    GetPolicyResponse {
        organization_id: organization_id.as_str().to_owned(),
        policy: Some(message(&stored.policy)),
        updated_by: stored.updated_by.unwrap_or_default(),
        update_time: stored.update_time.map(timestamp),
    }
}

pub(super) fn update_response(
    (organization_id, stored): (OrganizationId, StoredPolicy),
) -> UpdatePolicyResponse {
    UpdatePolicyResponse {
        organization_id: organization_id.as_str().to_owned(),
        policy: Some(message(&stored.policy)),
        updated_by: stored.updated_by.unwrap_or_default(),
        update_time: stored.update_time.map(timestamp),
    }
}

fn message(policy: &Policy) -> proto::Policy {
    let seconds = |duration: Duration| prost_types::Duration { seconds: duration.whole_seconds(), nanos: 0 };
    proto::Policy {
        longest_lifetime: policy.longest_lifetime.map(seconds),
        expiration_required: policy.expiration_required,
        longest_grace: policy.longest_grace.map(seconds),
        most_active_tokens_per_user: i32::try_from(policy.most_active_tokens.unwrap_or(0))
            .unwrap_or(i32::MAX),
        allowed_scopes: policy.allowed_scopes.iter().map(Scope::as_str).map(str::to_owned).collect(),
        reuse_detection: policy.reuse_detection,
        plan_required: policy.plan_required,
        default_plan: policy.default_plan.as_ref().map_or("", PlanName::as_str).to_owned(),
    }
}
