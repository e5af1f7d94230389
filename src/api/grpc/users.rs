//! The messages about users, to domain types and back, by pure functions. Called by the service alone.

use super::fields::{optional, owner_kind, page_size, timestamp};
use crate::api::proto;
use crate::domain::users::{User, UserListing};
use crate::domain::{OrganizationId, RevokeReason, UserId, Violations};
use crate::tokens::users::{NamedUser, SwitchedUser, UsersPage};

pub(super) fn revoke_request(
    message: &proto::RevokeUserTokensRequest,
) -> Result<(NamedUser, RevokeReason), Violations> {
    let mut violations = Violations::default();
    let named = named((&message.organization_id, &message.user_id, message.owner_kind), &mut violations);
    let reason = violations.take("reason", RevokeReason::parse(&message.reason));
    violations.finish(named.zip(reason))
}

pub(super) fn disable_request(
    message: &proto::DisableUserRequest,
) -> Result<(NamedUser, RevokeReason), Violations> {
    let mut violations = Violations::default();
    let named = named((&message.organization_id, &message.user_id, message.owner_kind), &mut violations);
    let reason = violations.take("reason", RevokeReason::parse(&message.reason));
    violations.finish(named.zip(reason))
}

pub(super) fn enable_request(message: &proto::EnableUserRequest) -> Result<NamedUser, Violations> {
    let mut violations = Violations::default();
    let named = named((&message.organization_id, &message.user_id, message.owner_kind), &mut violations);
    violations.finish(named)
}

fn named(
    (organization_id, user_id, kind): (&str, &str, i32),
    violations: &mut Violations,
) -> Option<NamedUser> {
    let organization_id =
        violations.take("organization_id", optional(organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", UserId::parse(user_id));
    let kind = violations.take("owner_kind", owner_kind(kind));
    Some(NamedUser { organization_id: organization_id?, user_id: user_id?, kind: kind?.unwrap_or_default() })
}

pub(super) fn disable_response(switched: &SwitchedUser) -> proto::DisableUserResponse {
    proto::DisableUserResponse {
        organization_id: switched.organization_id.as_str().to_owned(),
        disabled_count: count(switched.count),
        disable_time: switched.disable_time.map(timestamp),
        effective_time: Some(timestamp(switched.effective_time)),
    }
}

pub(super) fn enable_response(switched: &SwitchedUser) -> proto::EnableUserResponse {
    proto::EnableUserResponse {
        organization_id: switched.organization_id.as_str().to_owned(),
        enabled_count: count(switched.count),
        effective_time: Some(timestamp(switched.effective_time)),
    }
}

pub(super) fn list_request(message: &proto::ListUsersRequest) -> Result<(UserListing, u32), Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let kind = violations.take("owner_kind", owner_kind(message.owner_kind));
    let page_size = violations.take("page_size", page_size(message.page_size));
    let request = (|| {
        let only_disabled = message.only_disabled;
        let listing = UserListing { organization_id: organization_id?, kind: kind?, only_disabled };
        Some((listing, page_size?))
    })();
    violations.finish(request)
}

pub(super) fn list_response(page: UsersPage) -> proto::ListUsersResponse {
    proto::ListUsersResponse {
        users: page.users.into_iter().map(user).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
    }
}

fn user(user: User) -> proto::User {
    let (disable_time, disabled_by, disable_reason) = user
        .disabling
        .map(|disabling| (Some(timestamp(disabling.disable_time)), disabling.disabled_by, disabling.reason))
        .unwrap_or_default();
    proto::User {
        organization_id: user.organization_id.as_str().to_owned(),
        user_id: user.user_id.as_str().to_owned(),
        owner_kind: proto::OwnerKind::from(user.kind).into(),
        active_count: count(user.active),
        token_count: count(user.tokens),
        last_use_time: user.last_use_time.map(timestamp),
        disable_time,
        disabled_by,
        disable_reason,
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
