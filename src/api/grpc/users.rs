//! The messages about users, to domain types and back, by pure functions. Called by the service alone.

use time::Duration;

use super::fields::{optional, owner_kind, page_size, positive, scopes, timestamp};
use crate::api::proto;
use crate::domain::session::PORTAL_LIFETIME;
use crate::domain::users::{User, UserListing};
use crate::domain::{FieldError, OrganizationId, RevokeReason, UserId, Violations};
use crate::tokens::portal::{CreatePortalSession, PortalLink};
use crate::tokens::users::{NamedUser, UserUsability, UsersPage};

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

pub(super) fn disable_response(changed: &UserUsability) -> proto::DisableUserResponse {
    proto::DisableUserResponse {
        organization_id: changed.organization_id.as_str().to_owned(),
        disabled_count: count(changed.count),
        disable_time: changed.disable_time.map(timestamp),
        effective_time: Some(timestamp(changed.effective_time)),
    }
}

pub(super) fn enable_response(changed: &UserUsability) -> proto::EnableUserResponse {
    proto::EnableUserResponse {
        organization_id: changed.organization_id.as_str().to_owned(),
        enabled_count: count(changed.count),
        effective_time: Some(timestamp(changed.effective_time)),
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

pub(super) fn portal_request(
    message: &proto::CreatePortalSessionRequest,
) -> Result<CreatePortalSession, Violations> {
    const RESERVED: FieldError =
        FieldError::Rule("has a reserved scope, which is never issued in a portal session");
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", UserId::parse(&message.user_id));
    let scopes = scopes("scopes", &message.scopes, &mut violations);
    if scopes.as_ref().is_some_and(|scopes| !scopes.reserved().is_empty()) {
        violations.add("scopes", &RESERVED);
    }
    let ttl = violations.take("ttl", message.ttl.map_or(Ok(PORTAL_LIFETIME), portal_ttl));
    let request = (|| {
        let (organization_id, user_id) = (organization_id?, user_id?);
        Some(CreatePortalSession { organization_id, user_id, scopes: scopes?, ttl: ttl? })
    })();
    violations.finish(request)
}

fn portal_ttl(given: prost_types::Duration) -> Result<Duration, FieldError> {
    positive(given)
        .filter(|ttl| ttl.is_positive() && *ttl <= PORTAL_LIFETIME)
        .ok_or(FieldError::Rule("is not a duration above zero and at most 15 minutes"))
}

/// Returns the link below this address of the console.
pub(super) fn portal_response(console: &str, link: &PortalLink) -> proto::CreatePortalSessionResponse {
    use secrecy::ExposeSecret as _;
    proto::CreatePortalSessionResponse {
        url: format!("{console}portal#{}", link.code.render().expose_secret()),
        link_expire_time: Some(timestamp(link.link_expire_time)),
        session_expire_time: Some(timestamp(link.session_expire_time)),
    }
}

pub(super) fn portal_end_request(
    message: &proto::RevokePortalSessionsRequest,
) -> Result<(Option<OrganizationId>, UserId), Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", UserId::parse(&message.user_id));
    violations.finish(organization_id.zip(user_id))
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

pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
