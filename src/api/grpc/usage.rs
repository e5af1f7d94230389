//! The messages about usage, to domain types and back, by pure functions. Called by the service alone.

use super::fields::{optional, owner_kind, timestamp, token_id, whole_instant};
use super::users::count;
use crate::api::proto;
use crate::domain::usage::{MAX_TOP_TOKENS, Step, TokenUsage, UsagePoint, VerdictCount};
use crate::domain::{FieldError, OrganizationId, UserId, Violations};
use crate::tokens::usage::{GetUsage, Usage};

/// The most bytes of an answer: a thousand points and a hundred tokens, each with a count for each verdict.
pub(super) const MOST: usize = 512 << 10;

pub(super) fn request(message: &proto::GetUsageRequest) -> Result<GetUsage, Violations> {
    const ALONE: FieldError = FieldError::Rule("is for a user_id, and a token has one owner");
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let token_id = violations.take("token_id", optional(&message.token_id, token_id));
    let user_id = violations.take("user_id", optional(&message.user_id, UserId::parse));
    let kind = violations.take("owner_kind", owner_kind(message.owner_kind));
    let start = violations.take("start_time", message.start_time.map(whole_instant).transpose());
    let end = violations.take("end_time", message.end_time.map(whole_instant).transpose());
    let step = violations.take("step", step(message.step));
    let top = violations.take("top_tokens", top(message.top_tokens));
    if !message.token_id.is_empty() {
        for (field, given) in [
            ("organization_id", !message.organization_id.is_empty()),
            ("user_id", !message.user_id.is_empty()),
            ("top_tokens", message.top_tokens != 0),
        ] {
            if given {
                violations.add(field, &FieldError::Rule("cannot be combined with token_id"));
            }
        }
    }
    if message.user_id.is_empty() && message.owner_kind != 0 {
        violations.add("owner_kind", &ALONE);
    }
    let request = (|| {
        Some(GetUsage {
            organization_id: organization_id?,
            token_id: token_id?,
            user_id: user_id?,
            kind: kind?,
            between: (start?, end?),
            step: step?,
            top: top?,
        })
    })();
    violations.finish(request)
}

fn step(number: i32) -> Result<Step, FieldError> {
    match proto::UsageStep::try_from(number) {
        Ok(proto::UsageStep::Unspecified | proto::UsageStep::Hour) => Ok(Step::Hour),
        Ok(proto::UsageStep::Day) => Ok(Step::Day),
        Err(_) => Err(FieldError::Rule("is not a step")),
    }
}

fn top(number: i32) -> Result<u32, FieldError> {
    let top = u32::try_from(number).ok().filter(|number| *number <= MAX_TOP_TOKENS);
    top.ok_or(FieldError::Rule("is not a number from 0 to 100"))
}

pub(super) fn response(usage: Usage) -> proto::GetUsageResponse {
    proto::GetUsageResponse {
        start_time: Some(timestamp(usage.query.range.start)),
        end_time: Some(timestamp(usage.query.range.end)),
        points: usage.answer.points.into_iter().map(point).collect(),
        top_tokens: usage.answer.top.into_iter().map(token).collect(),
    }
}

fn point(point: UsagePoint) -> proto::UsagePoint {
    proto::UsagePoint {
        start_time: Some(timestamp(point.start)),
        counts: point.counts.into_iter().map(verdict).collect(),
    }
}

fn token(token: TokenUsage) -> proto::TokenUsage {
    let (name, user_id, kind) = token.named.map_or_else(Default::default, |(name, user, kind)| {
        (name, user, proto::OwnerKind::from(kind).into())
    });
    proto::TokenUsage {
        token_id: token.id.to_string(),
        name,
        user_id,
        owner_kind: kind,
        counts: token.counts.into_iter().map(verdict).collect(),
    }
}

fn verdict(given: VerdictCount) -> proto::VerdictCount {
    proto::VerdictCount { verdict: given.verdict.into(), verifications: count(given.verifications) }
}
